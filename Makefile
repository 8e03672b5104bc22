# What one does with this checkout. Each target says in one line what it is doing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz-api chaos simulate fuzz s3 fluvio lint audit bench clean-state

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/overdrive
# What is tested, and so compiled once for tests and clippy: the defaults, and Kafka over TLS, which needs OpenSSL's headers.
TESTED := kafka-tls
export OVERDRIVE_KAFKA_JARS ?= $(CACHE)/kafka

help:                           ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo:                           ## build and show the whole system at work; needs only Rust and a C compiler, and Python to train a ranker
	@echo "== building (the first time takes some minutes)"
	@cargo build --release --locked
	@echo "== what training a ranker needs by pip into $(CACHE); without it the demo does the rest"
	@if [ -z "$${ORT_DYLIB_PATH:-}" ]; then library="$$(scripts/fetch-onnxruntime.sh)" && eval "$$library" || true; fi; \
	if [ -z "$${OVERDRIVE_PYTHON:-}" ]; then python="$$(scripts/fetch-python.sh)" && eval "$$python" || true; fi; \
	echo "== starting the demo"; \
	exec target/release/overdrive demo

test:                           ## install the servers the tests use, then run every test
	@echo "== servers and tools by apt-get, where they are missing"
	@scripts/install-servers.sh
	@echo "== Kafka's jars by Maven into $(OVERDRIVE_KAFKA_JARS)"
	@scripts/fetch-kafka.sh
	@echo "== ONNX Runtime by pip into $(CACHE), unless ORT_DYLIB_PATH names one"
	@if [ -z "$${ORT_DYLIB_PATH:-}" ]; then library="$$(scripts/fetch-onnxruntime.sh)"; eval "$$library"; fi; \
	echo "== what training needs by pip into $(CACHE), unless OVERDRIVE_PYTHON names a Python that has it"; \
	if [ -z "$${OVERDRIVE_PYTHON:-}" ]; then python="$$(scripts/fetch-python.sh)"; eval "$$python"; fi; \
	echo "== tests"; \
	cargo test --locked --features $(TESTED) --no-fail-fast
	@echo "== the read service, asked all that its document describes, by schemathesis from pip in $(CACHE)"
	@scripts/fuzz-api.sh

fuzz-api:                       ## ask the read service all that its document describes, N=20 examples of each operation, SEED=1
	@echo "== the binary, as tests build it"
	@cargo test --locked --features $(TESTED) --no-run --test shim
	@echo "== the read service, asked all that its document describes"
	@scripts/fuzz-api.sh

N ?= 200
CYCLES ?= 20
BROKER ?= 20
REDIS ?= 20
OUTAGE ?= 120
SEED ?= 1
chaos:                          ## kill engines N=200 times, rescale CYCLES=20 times, restart Kafka and Redis 20 times, take Redis away for OUTAGE=120 s, and compare
	@echo "== chaos: $(N) kills, $(CYCLES) cycles, $(BROKER) restarts of Kafka, $(REDIS) of Redis, $(OUTAGE) s without it, seed $(SEED)"
	@CHAOS_KILLS=$(N) CHAOS_CYCLES=$(CYCLES) CHAOS_BROKER=$(BROKER) CHAOS_REDIS=$(REDIS) CHAOS_OUTAGE=$(OUTAGE) CHAOS_SEED=$(SEED) \
		cargo test --locked --test chaos -- --nocapture --test-threads=1

fuzz: N = 2000000
fuzz:                           ## mutate the inputs of every decoder, N=2000000 times each, in search of a panic
	@echo "== fuzz: $(N) executions of each target, seed $(SEED)"
	@FUZZ_RUNS=$(N) FUZZ_SEED=$(SEED) cargo test --locked --test fuzz -- --nocapture

s3:                             ## state in a real object store: OVERDRIVE_TEST_S3=s3://bucket/prefix, credentials by AWS_…
	@echo "== state, over S3"
	@cargo test --locked --features s3 --test state s3 -- --include-ignored

fluvio:                         ## the source's contract over a real Fluvio: FLUVIO_RUN=path of fluvio-run, or FLUVIO_ENDPOINT
	@echo "== the contract of sources, over Fluvio"
	@cargo test --locked --features fluvio --test sources fluvio -- --include-ignored

simulate:                       ## run N=200 seeds of the whole engine in one thread, with crashes between any two calls
	@echo "== simulator: $(N) seeds"
	@SIM_SEEDS=$(N) cargo test --locked --test simulator -- --nocapture

lint:                           ## formatting and clippy, with the features that are tested, without any, and with the others
	@echo "== formatting"
	@cargo fmt --check
	@echo "== clippy, default features and $(TESTED)"
	@cargo clippy --locked --all-targets --features $(TESTED) -- -D warnings
	@echo "== clippy, no features"
	@cargo clippy --locked --all-targets --no-default-features -- -D warnings
	@echo "== clippy, with fluvio"
	@cargo clippy --locked --all-targets --features $(TESTED),fluvio -- -D warnings
	@echo "== clippy, with s3"
	@cargo clippy --locked --all-targets --features $(TESTED),s3 -- -D warnings

audit:                          ## licences, advisories and sources of every dependency; needs cargo-deny
	@echo "== dependencies"
	@cargo deny --locked check

bench:                          ## run the benchmarks
	@echo "== benchmarks"
	@cargo bench --locked

clean-state:                    ## delete the embedded log and all that was written under .overdrive
	@echo "== deleting .overdrive"
	@rm -rf .overdrive
