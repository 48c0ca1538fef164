# The image of a replica: one program on distroless Debian, no shell, not root.
#
#   docker build -t beseda .
#
# The dependencies are a separate layer (cargo-chef), rebuilt only when Cargo.lock changes.

ARG RUST_VERSION=1.95

FROM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS chef
# The slim image has the C compiler that aws-lc and mimalloc need.
RUN cargo install --locked cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /src

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json --bin beseda

FROM chef AS builder
COPY --from=planner /src/recipe.json .
# Without the feature `dev`: production needs no private servers and demo tokens.
RUN cargo auditable chef cook --release --locked --no-default-features --package beseda --recipe-path recipe.json
COPY . .
# `auditable` puts the list of dependencies into the program: `cargo audit bin` and scanners read it.
RUN cargo auditable build --release --locked --no-default-features --package beseda \
    && install -D target/release/beseda /out/beseda && mkdir /out/attachments

# The load test, for `docker compose run loadtest`: not part of the service's image.
FROM builder AS loadtest-builder
RUN cargo build --release --locked --package loadtest && install -D target/release/loadtest /out/loadtest

FROM gcr.io/distroless/cc-debian12:nonroot AS loadtest
COPY --from=loadtest-builder /out/loadtest /usr/local/bin/loadtest
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/loadtest"]

FROM gcr.io/distroless/cc-debian12:nonroot AS beseda
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Beseda" \
      org.opencontainers.image.description="A self-hosted, horizontally scalable one-to-one chat service" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=builder /out/beseda /usr/local/bin/beseda
# Where a volume for attachments may be mounted: a new volume takes its owner over.
COPY --from=builder --chown=65532:65532 /out/attachments /var/lib/beseda/attachments
# The user `nonroot` of distroless, as a number: Kubernetes verifies only numbers.
USER 65532:65532
ENV BESEDA_LOG_FORMAT=json
# 8080 for clients; 9090 for health and metrics, not for the internet.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/local/bin/beseda", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/beseda"]
CMD ["serve"]
