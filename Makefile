# Everything here works on a fresh Debian or Ubuntu machine with Rust; missing packages are installed.

export PATH := $(CURDIR)/target/tools/bin:$(PATH)
CARGO := cargo
# The agent as it is shipped: one static file, without tables for unwinding, since it aborts on a panic.
TARGET := $(shell uname -m)-unknown-linux-gnu
STATIC := RUSTFLAGS='-C target-feature=+crt-static -C force-unwind-tables=no'

.PHONY: help demo test bench lint

help:
	@echo 'make demo    a pipeline with three environments, from GitLab to a task and back, on this machine'
	@echo 'make test    all tests'
	@echo 'make bench   how fast and how small: a table (BENCH=--quick for a short one, BENCH=--json)'
	@echo 'make lint    formatting, clippy, licences and bans of the dependencies'

demo:
	@scripts/install-packages demo
	$(CARGO) build --locked -p staffetta -p agent
	target/debug/staffetta local examples/three-environments

# The tests start the programs that the first line builds.
test:
	@scripts/install-packages test
	@scripts/install-aws-cli
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-run
	$(CARGO) test --locked --workspace --quiet --no-fail-fast
	@echo 'All tests passed.'

bench:
	@scripts/install-packages demo
	$(CARGO) build --locked --release -p staffetta -p agent -p testkit --bins
	$(STATIC) $(CARGO) build --locked --profile agent --target $(TARGET) -p agent --bin staffetta-agent
	target/release/bench --agent target/$(TARGET)/agent/staffetta-agent $(BENCH)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo 'Licences and bans were not checked: cargo install cargo-deny, then again.'; fi
