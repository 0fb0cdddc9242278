# make up     runs Portico on this machine          make test    checks and all tests
# make check  style, types, layers                  make bench   figures against peers (build/bench.json)
# make lock   compiles requirements/*.txt anew
SHELL := /bin/bash
PY ?= python3
BIN := .venv/bin
SUITE ?=
WORKERS ?= 2
LISTEN ?= 127.0.0.1:8000
DATA ?=
TOOL_LOCKS := gateway/portico_gateway/compute/local/locks
SOURCES := gateway/pyproject.toml agent/pyproject.toml shared/pyproject.toml

# Debian packages. Installed when missing and we are root; else the command is said.
UP_PACKAGES := btrfs-progs nftables iproute2 ca-certificates
TEST_PACKAGES := $(UP_PACKAGES) chromium fonts-dejavu-core libatomic1 passt zstd git
BENCH_PACKAGES := $(TEST_PACKAGES) nginx-light wrk nodejs npm

.PHONY: up test check bench lock clean packages-up packages-test packages-bench

up: .venv/.runtime packages-up
	@exec $(BIN)/portico up --listen $(LISTEN) $(if $(DATA),--data $(DATA))

test: .venv/.dev packages-test check
	@mkdir -p build
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --cov-report=json:build/coverage.json $(PYTEST)
	@$(BIN)/python -c 'import json; print("coverage:", round(json.load(open("build/coverage.json"))["totals"]["percent_covered"], 1), "%")'

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p portico_shared -p portico_gateway -p portico_agent
	$(BIN)/lint-imports --no-cache

bench: .venv/.dev packages-bench
	mkdir -p build
	$(BIN)/python tests/bench/run.py $(if $(SUITE),--suite $(SUITE)) --out build/bench.json

lock: .venv/.dev
	for f in requirements/runtime requirements/dev $(TOOL_LOCKS)/jupyterlab; do \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links requirements/$$(basename $$f).in -o $$f.txt; done

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache

# --- the environment ---------------------------------------------------------------------------------------------

.venv/bin/python:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Portico needs Python 3.11 or newer"; exit 1; }
	@$(PY) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PY) has no ensurepip: installing python3-venv"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv ca-certificates; \
	  else echo "run: sudo apt-get install python3-venv"; exit 1; fi; }
	$(PY) -m venv .venv

.venv/.runtime: .venv/bin/python requirements/runtime.txt $(SOURCES)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e shared -e agent -e gateway
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

define install_packages
	@missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get >/dev/null; then echo "note: could not look for:$$missing (no apt-get here); portico doctor says what matters"; \
	  elif [ "$$(id -u)" = 0 ]; then echo "installing:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "note: for full isolation and snapshots: sudo apt-get install$$missing"; fi; fi
endef

packages-up:
	$(call install_packages,$(UP_PACKAGES))

packages-test:
	$(call install_packages,$(TEST_PACKAGES))

packages-bench:
	$(call install_packages,$(BENCH_PACKAGES))
