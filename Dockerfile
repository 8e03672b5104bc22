# syntax=docker/dockerfile:1
# The engine and the shim in one image: `docker build -t overdrive .`

FROM rust:1.95.0-slim-bookworm AS builder
# librdkafka is built from its sources: gcc, make, zlib, and OpenSSL for Kafka over TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock overdrive.toml ./
COPY schemas schemas
COPY benches benches
COPY training training
COPY src src
RUN cargo build --release --locked --features kafka-tls --bin overdrive && strip --strip-debug target/release/overdrive

FROM debian:12.11-slim AS runtime
# ONNX Runtime is not in the image: mount one and name it in ORT_DYLIB_PATH. It needs the C++ library.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 overdrive \
    && useradd --uid 10001 --gid overdrive --no-create-home --shell /usr/sbin/nologin overdrive \
    && install -d -o overdrive -g overdrive /var/lib/overdrive
COPY --from=builder /build/target/release/overdrive /usr/local/bin/overdrive
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/overdrive/
ENV OVERDRIVE_STATE_DIR=/var/lib/overdrive \
    OVERDRIVE_SERVICE__BIND=0.0.0.0
VOLUME /var/lib/overdrive
WORKDIR /var/lib/overdrive
USER 10001:10001
EXPOSE 8088 50051
# Whoever runs a command without the service (`run` beside a `serve`) overrides this, as docker-compose.yml does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["overdrive", "doctor", "--ask", "127.0.0.1:8088/livez"]
ENTRYPOINT ["overdrive"]
CMD ["serve"]
