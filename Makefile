# Everything here works on a fresh Debian or Ubuntu machine with Rust; missing packages are installed.

export PATH := $(CURDIR)/target/tools/bin:$(PATH)
CARGO := cargo
IMAGES := manager agent task-nodejs
# Every call of AWS that a test makes; the last test compares them with the policies.
AWS_CALLS := target/aws-calls

.PHONY: help demo test conformance bench images lint

help:
	@echo 'make demo         a pipeline with three environments, from GitLab to a task and back, on this machine'
	@echo 'make test         all tests'
	@echo 'make conformance  what jobs must do, case by case: a table by area (CONFORMANCE=cache for a part)'
	@echo 'make bench        how fast and how small: a table (BENCH=--quick for a short one, BENCH=--json)'
	@echo 'make images       container images, with docker, podman or buildah: docs/images.md'
	@echo 'make lint         formatting, clippy, licences and bans of the dependencies'

demo:
	@scripts/install-packages demo
	$(CARGO) build --locked -p staffetta -p agent
	target/debug/staffetta local examples/three-environments

# The tests start the programs that the first lines build; the static ones are for the images.
test:
	@scripts/install-packages test
	@scripts/install-aws-cli
	@scripts/install-moto
	@scripts/install-cfn-lint
	@scripts/install-ministack
	scripts/static-programs dev
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-run
	rm -rf $(AWS_CALLS)
	STAFFETTA_AWS_CALLS=$(AWS_CALLS) $(CARGO) test --locked --workspace --quiet --no-fail-fast
	STAFFETTA_AWS_CALLS=$(AWS_CALLS) $(CARGO) test --locked --quiet -p testkit --test least_privilege -- --ignored
	@scripts/test-images
	@echo 'All tests passed.'

# A table of small pipelines: crates/testkit/tests/conformance/README.md. `make test` runs it too.
conformance:
	@scripts/install-packages conformance
	@scripts/install-moto
	$(CARGO) build --locked -p staffetta -p agent --bins
	$(CARGO) test --locked -p testkit --test conformance -- --must-match $(CONFORMANCE)

bench:
	@scripts/install-packages bench
	@scripts/install-aws-cli
	@scripts/install-moto
	$(CARGO) build --locked --release -p staffetta -p agent -p testkit --bins
	scripts/static-programs release staffetta-agent
	target/release/bench --agent target/static/release/$(shell uname -m)/staffetta-agent $(BENCH)

# PLATFORMS, IMAGES_BUILDER and IMAGE_PREFIX may be given too.
images:
	@scripts/install-packages images
	scripts/build-images $(IMAGES)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo 'Licences and bans were not checked: cargo install cargo-deny, then again.'; fi
