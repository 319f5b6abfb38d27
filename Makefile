# Tepui. `make run` to see it work, `make test` to check it; both need nothing but a
# Rust toolchain and install what else is missing. CONTRIBUTING.md says the rest.

CARGO ?= cargo
# The system's RocksDB, where the compiler says this machine keeps its libraries.
MULTIARCH := $(shell cc -print-multiarch 2>/dev/null)
ifneq ($(MULTIARCH),)
export ROCKSDB_LIB_DIR ?= /usr/lib/$(MULTIARCH)
endif

# What an operator runs.
PRODUCT := --bin tepui --bin tepui-master --bin tepui-agent --bin tepui-shim

.PHONY: run test exact torture sim lint bench images setup

run: setup ## Build, start a cluster on 127.0.0.1, run a small workload, stay up until Ctrl-C
	@echo "==> building (the first time takes a few minutes)"
	@$(CARGO) build --release $(PRODUCT)
	@scripts/run.sh

test: setup ## Every test, from nothing
	@scripts/docker.sh
	@scripts/test.sh

# STEPS in random histories, 200 each; a seed that fails prints the shortest history as a scenario
STEPS ?= 1000000

exact: setup ## The allocator against its oracle, bit for bit, over a million random steps
	HISTORIES=$$(( ($(STEPS) + 199) / 200 )) $(CARGO) test -p tepui-allocator --test histories -- --nocapture

torture: setup ## Masters and agents killed, paused, cut off and filled up under load, for minutes
	$(CARGO) build --release $(PRODUCT) --bin torture
	target/release/torture

lint: setup ## Formatting and clippy, as CI wants them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench: setup ## Five minutes of measuring, and a page of it: target/bench/index.html
	$(CARGO) build --release $(PRODUCT) --bin tepui-bench
	target/release/tepui-bench tour --out target/bench

# MINUTES, or SEEDS=first..last; arguments of its own: target/release/tepui-sim help
MINUTES ?= 3
SEEDS ?=

sim: setup ## Whole clusters under faults from random seeds; prints the shortest history of each failure
	$(CARGO) build --release -p tepui-sim
	target/release/tepui-sim scenarios
	target/release/tepui-sim run $(SEEDS) $(if $(SEEDS),,--minutes $(MINUTES))

images: setup ## Container images from what is built here, no outside registry
	@scripts/images.sh

setup:
	@scripts/setup.sh
