# Everything a working copy needs; `make help` lists it. Set-up is part of every target: on Debian
# and Ubuntu with Rust and a C compiler nothing else has to be done by hand.

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

# The program takes the shell's place, so that signals reach it.
run: setup ## Two replicas with a private Postgres and Redis; Ctrl-C ends them. ARGS="--port 9000"
	@cargo build --locked --package beseda
	@exec $(TARGET_DIR)/debug/beseda dev --end-with-parent $(ARGS)

# A test opens thousands of sockets; each one takes a file on both ends.
test: setup-tests ## All tests. ARGS="name" for some of them
	@ulimit -n "$$(ulimit -Hn)" 2>/dev/null || true; cargo test --locked --workspace --no-fail-fast $(ARGS)

page-test: setup ## The demo page in a real browser (needs Node.js 20). ARGS="name" for some of the tests
	@scripts/page-test $(ARGS)

client-test: setup ## The TypeScript client: types, vectors, replicas with faults (needs Node.js 20)
	@scripts/client-test

examples-test: setup ## The examples of docs/examples, against a Beseda of their own. ARGS="django" for one
	@scripts/examples-test $(ARGS)

client-schema: setup ## Write the client's types anew, after a change of the REST interface
	@scripts/client-test --schema

# The image, compose, chart and rules, with the real tools; on Debian it installs them.
ops-test: ## Image, compose, chart, alerts, really run. ARGS="quick" without a Docker engine
	@scripts/ops-test $(ARGS)

versions-test: setup-tests ## All tests on the oldest and newest PostgreSQL and Redis. ARGS="all" for those between
	@scripts/versions-test $(ARGS)

security-test: setup ## Outside judges: schemathesis, kosoku, slowhttptest (installs them where missing)
	@scripts/security-test

# As a book; without mdBook the documents are read as they are.
docs: ## The documents as a book in target/book; installs mdBook with cargo where it is missing
	@scripts/book

docs-test: setup ## The terminal lines of the documents, run; their links. ARGS="--update" records the answers
	@cargo build --locked --package beseda
	@scripts/docs-test $(ARGS)

check: ## What continuous integration runs
	@.ci/run

# As root the database's files can lie elsewhere, with a link to them here.
clean-data: ## Remove the data of `make run`
	@if [ -L $(DATA)/postgres/cluster ]; then rm -rf "$$(readlink $(DATA)/postgres/cluster)"; fi
	@rm -rf $(DATA)
