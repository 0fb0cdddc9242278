# make up · make test · make check · make bench
SHELL := /bin/bash
PY ?= python3
BIN := .venv/bin

.PHONY: check lock
check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p portico_shared -p portico_gateway -p portico_agent
	$(BIN)/lint-imports --no-cache

lock:
	for f in runtime dev jupyterlab; do $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links requirements/$$f.in -o requirements/$$f.txt; done
