# All tasks of a working copy; `make help` lists them. Each target installs what it needs: on Debian
# and Ubuntu with Rust and a C compiler nothing has to be installed by hand.

TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
DATA = $(or $(BESEDA_DEV_DATA),data)

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests run test page-test client-test examples-test client-schema ops-test versions-test security-test docs docs-test check clean-data

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: ## Install what is missing: PostgreSQL, Redis (part of run and test)
	@scripts/setup

setup-tests:
	@scripts/setup --tests

# `exec`, so that signals reach the program instead of a shell.
run: setup ## Two replicas with a private Postgres and Redis; Ctrl-C ends them. ARGS="--port 9000"
	@cargo build --locked --package beseda
	@exec $(TARGET_DIR)/debug/beseda dev --end-with-parent $(ARGS)

# A test opens thousands of sockets, each with a file descriptor at both ends.
test: setup-tests ## All tests. ARGS="name" for some of them
	@ulimit -n "$$(ulimit -Hn)" 2>/dev/null || true; cargo test --locked --workspace --no-fail-fast $(ARGS)

page-test: setup ## The demo page in a real browser (needs Node.js 20). ARGS="name" for some of the tests
	@scripts/page-test $(ARGS)

client-test: setup ## The TypeScript client: types, vectors, replicas with faults (needs Node.js 20)
	@scripts/client-test

examples-test: setup ## The examples of docs/examples, against their own Beseda. ARGS="django" for one
	@scripts/examples-test $(ARGS)

client-schema: setup ## Regenerate the client's types, after a change of the REST interface
	@scripts/client-test --schema

# On Debian it installs the tools.
ops-test: ## Image, compose, chart, alerts, with the real tools. ARGS="quick" without a Docker engine
	@scripts/ops-test $(ARGS)

versions-test: setup-tests ## All tests on the oldest and newest PostgreSQL and Redis. ARGS="all" for those between
	@scripts/versions-test $(ARGS)

security-test: setup ## External tools: schemathesis, kosoku, slowhttptest (installed if missing)
	@scripts/security-test

docs: ## The documents as a book in target/book (mdBook, installed if missing)
	@scripts/book

docs-test: setup ## Run the terminal lines of the documents, check their links. ARGS="--update" records the answers
	@cargo build --locked --package beseda
	@scripts/docs-test $(ARGS)

check: ## Everything that continuous integration runs
	@.ci/run

# As root the database's files can be elsewhere, behind a symbolic link.
clean-data: ## Remove the data of `make run`
	@if [ -L $(DATA)/postgres/cluster ]; then rm -rf "$$(readlink $(DATA)/postgres/cluster)"; fi
	@rm -rf $(DATA)
