# syntax=docker/dockerfile:1

# Cargo features, such as `--build-arg FEATURES=otlp` for spans.
ARG FEATURES=""

# Debian 12, as the final stage is: a binary linked against a newer glibc would not start there.
FROM rust:1.95-slim-bookworm AS build
ARG FEATURES
WORKDIR /build

# The dependencies alone, with an empty program: this layer stays cached until they change. Benches
# and tests are cut from the manifest because their files are not here yet.
COPY Cargo.toml Cargo.lock ./
RUN sed -i -e '/^\[\[bench\]\]/,/^$/d' -e '/^\[\[test\]\]/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --profile dist --locked --features "$FEATURES"

# Cargo goes by the time of change, and copied files may be older than the empty program.
COPY . .
RUN touch src/main.rs src/lib.rs && cargo build --profile dist --locked --features "$FEATURES" --bin gapless

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="gapless" \
      org.opencontainers.image.description="A layer-7 global load balancer that predicts, measures and closes its own failover gap" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /build/target/dist/gapless /usr/local/bin/gapless
COPY --from=build /build/LICENSE-APACHE /build/LICENSE-MIT /usr/share/doc/gapless/

# 8080 is what the examples listen on; 9901 is for metrics and health, with the configuration
# `[status] address = "0.0.0.0:9901"`. The admin listener stays on the container's loopback.
EXPOSE 8080 9901
USER nonroot

# No configuration is included: a default would probe unrelated addresses and answer 503.
# Mount the directory rather than the file, so that an edit that replaces the file is seen:
#   docker run -v ./config:/etc/gapless:ro -p 8080:8080 gapless
# A stop drains for up to 30 s by default, longer than Docker waits: docker stop --time 40.
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/gapless", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/gapless"]
CMD ["run", "/etc/gapless/gapless.toml"]
