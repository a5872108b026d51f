# `make help` lists the targets that have a `##` comment.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VENV := .venv
ARGS ?=

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Run the whole scenario on this machine: back up, lose the node, restore (ARGS="--rows N --seed N --node docker")
	target/debug/demo $(ARGS)

.PHONY: local
local: build ## Run a protected group in the local AWS stand-in until Ctrl-C; prints commands for the aws CLI
	target/debug/standin $(ARGS)

# A failure does not end the run: every test runs, and the summary is printed before `make` fails.
.PHONY: test
test: build venv ## Run every test: the shipped binaries on real Postgres, and the checks of template.yaml
	@failed=; \
	cargo test --locked --workspace --no-fail-fast 2>&1 | tee target/test.log || failed=1; \
	tests/template/run.sh 2>&1 | tee target/test-template.log || failed=1; \
	awk '/(passed|failed|error).* in [0-9.]+s/ { for (i = 2; i <= NF; i++) { \
	    if ($$i ~ /^passed/) passed += $$(i - 1); if ($$i ~ /^(failed|error)/) failed += $$(i - 1) } } \
	  END { printf "%d passed, %d failed\n", passed, failed }' target/test.log target/test-template.log; \
	docker version >/dev/null 2>&1 || echo "Skipped the tests that need containers: no Docker Engine responds."; \
	[ -z "$$failed" ]

.PHONY: fuzz
fuzz: build ## Run coverage-guided fuzzing of everything that is parsed, and restore random databases (ARGS=seconds per target; default 60)
	@command -v c++ >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends build-essential; }
	tests/fuzz.sh $(ARGS)

.PHONY: model
model: build ## Check every state of the protocol's model within bounds (ARGS="--size N --only NAME")
	target/debug/model $(ARGS)

# If possible, runs in a network namespace with only the loopback interface: recovery must not need any other network.
.PHONY: chaos
chaos: build ## Inject every fault of the catalogue, one at a time (ARGS="--seed N --runs N --only NAME")
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends faketime; }
	@if [ "$$(id -u)" = 0 ] && unshare --net ip link set lo up 2>/dev/null; then \
	  exec unshare --net sh -c 'ip link set lo up && exec target/debug/chaos "$$@"' chaos $(ARGS); \
	else \
	  exec target/debug/chaos $(ARGS); \
	fi

# The programs are built as AWS runs them. The stand-in is a debug build, but its code that processes every byte is
# optimised, too.
.PHONY: bench
bench: build venv ## Measure Rekindle against other programs in the same run (ARGS="--large --only 'restore of 800' --runs N")
	cargo build --locked --release -p backup -p restore -p hello
	cargo build --locked --profile node -p rekindle-node
	@command -v perf >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends linux-perf; } || echo "perf is missing, so no profiles are recorded."
	target/debug/bench $(ARGS)

.PHONY: lint
lint: venv ## Run all static checks of CI: format, clippy, documentation, dependencies, scripts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items
	command -v shellcheck >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy shellcheck; }
	git ls-files '*.sh' .ci/run | xargs shellcheck
	[ -x target/tools/bin/cargo-deny ] || cargo install --locked --quiet --root target/tools cargo-deny@0.20.2
	target/tools/bin/cargo-deny check bans licenses sources

.PHONY: package
package: venv ## Build both functions and the agent for AWS (x86_64) into dist/, with cargo-lambda
	cargo lambda build --locked --release --x86-64 --lambda-dir dist -p backup -p restore
	cargo lambda build --locked --release --x86-64 --lambda-dir dist -p backup -p restore --output-format zip
	mkdir -p dist/agent
	$(MAKE) -C layer build-AgentLayer ARTIFACTS_DIR=$(CURDIR)/dist/agent

# Builds all packages and targets, so that demo and test share one build. With fewer, cargo would select other features
# of the AWS SDK and compile it again.
.PHONY: build
build: postgres
	cargo build --locked --workspace --all-targets

# Installs what a new Debian machine may lack. Nothing else is installed outside this folder.
.PHONY: postgres
postgres:
	@missing=; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgresql"; \
	command -v cc >/dev/null || missing="$$missing build-essential"; \
	command -v zstd >/dev/null || missing="$$missing zstd"; \
	! docker version >/dev/null 2>&1 || for tool in curl openssl; do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends $$missing; }

# A virtual environment with pinned versions of the aws CLI and the template's linters.
.PHONY: venv
venv: $(VENV)/installed
$(VENV)/installed: tests/template/requirements.txt
	python3 -c 'import ensurepip' 2>/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends python3-venv; }
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@
