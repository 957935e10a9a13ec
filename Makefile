# Every target does its own set-up; all it needs is make and a Python of 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := .venv-extras
INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := --generate-hashes --universal --upgrade --quiet \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench study crash fuzz soak spark boosted audit lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything the project needs

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Evenhand needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor}. Choose another with make PYTHON=…")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python $(INSTALL) --require-hashes -r requirements.lock
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the engine on embedded SQLite with simulated viewers
	$(BIN)/evenhand demo

test: $(READY) ## the whole test suite
	$(BIN)/python -m pytest

lint: $(READY) ## format, style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## benchmarks, each beside a peer or a floor in the same run
	$(BIN)/python -m benchmarks

study: $(READY) ## coverage and false alarms of all intervals over simulated logs; writes docs/study.md
	$(BIN)/python -m tests.study --jobs 2

ROUNDS ?= 300
crash: $(READY) ## kill a server under load for ROUNDS rounds (REPLICAS=2: on PostgreSQL); nothing may be lost
	$(BIN)/python -m tests.crash --rounds $(ROUNDS) $(if $(REPLICAS),--postgres --replicas $(REPLICAS))

fuzz: $(READY) ## ask a server what its OpenAPI document allows and forbids, for MINUTES
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES))

soak: $(READY) ## a steady load for MINUTES; the server's memory must stay small and flat
	$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES))

boosted: $(EXTRAS)/.ready ## the optional ranker of boosted trees, with LightGBM
	$(EXTRAS)/bin/python -m pytest -n 0 tests/recsys/boosted.py

spark: $(EXTRAS)/.ready ## evaluation on a Spark cluster of two threads beside one in memory; needs Java 17
	@java -version 2>/dev/null || { echo "Spark needs Java 17 or newer on the path"; exit 2; }
	$(EXTRAS)/bin/python -m pytest -n 0 tests/spark/checks.py

$(EXTRAS)/.ready: requirements.lock requirements-extras.lock pyproject.toml
	$(PYTHON) -m venv --clear $(EXTRAS)
	$(EXTRAS)/bin/python $(INSTALL) --require-hashes -r requirements.lock -r requirements-extras.lock
	$(EXTRAS)/bin/python $(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

audit: $(READY) ## known vulnerabilities in what both locks pin; REQUIRED=1 insists on knowing
	$(BIN)/python -m tests.audit $(if $(REQUIRED),--required)

lock: ## resolve both locks anew (needs uv on the path)
	uv pip compile pyproject.toml --group dev $(LOCKED) -o requirements.lock
	uv pip compile --group extras --constraint requirements.lock $(LOCKED) -o requirements-extras.lock

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(EXTRAS) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
