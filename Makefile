# `make help` lists what can be made. Nothing is assumed but python3 (3.11 or newer), pip, make and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= auto

# Tests and benchmarks run side by side on the cores there are: one thread each unless the caller says otherwise.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

DEMO_EXTRAS := cli,telemetry,figures
TEST_EXTRAS := cli,torch,onnx,telemetry,sklearn,dask,tuning,figures,tracking,dev
CORE_TESTS = $(filter-out $(addprefix tests/,cases cli integrations report runner __pycache__), \
               $(wildcard tests/test_*.py) $(patsubst %/,%,$(wildcard tests/*/)))

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit unit-uncompiled bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/demo.stamp  ## a week of video streaming, memories compared, with a report in demo/
	$(BIN)/memento demo --out demo $(DEMO_ARGS)

test: lint unit unit-uncompiled  ## everything that continuous integration checks

lint: $(VENV)/test.stamp  ## ruff, its format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/test.stamp  ## all tests and docstring examples, in random order
	$(BIN)/pytest -n $(WORKERS) --cov --cov-report= --cov-fail-under=0 $(PYTEST_ARGS)

# Line coverage cannot see into compiled code: the core runs once more as plain Python, and its floor holds for both runs.
unit-uncompiled: $(VENV)/test.stamp unit  ## the core's tests with kernels as plain Python; coverage floor
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -n $(WORKERS) -m "not compiled and not slow" \
	    --cov --cov-append --cov-report=term $(CORE_TESTS) $(PYTEST_ARGS)

bench: $(VENV)/test.stamp  ## the table of speed and memory
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

docs: $(VENV)/docs.stamp  ## the documentation as a site in site/
	$(BIN)/mkdocs build --strict
	@echo "site/index.html"

clean:  ## remove the environment and everything made
	rm -rf $(VENV) build dist site demo .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Memento needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments (no ensurepip)."; \
	    echo "Debian, Ubuntu: apt-get install python3-venv. Elsewhere: $(PYTHON) -m pip install virtualenv, then"; \
	    echo "$(PYTHON) -m virtualenv $(VENV), and make again."; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)

# One recipe for all stamps: $(call install,extras). A stamp is younger than what it was made from, so the second time is instant.
define install
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[$(1)]'
	@touch $@
endef

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,$(DEMO_EXTRAS))

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,$(TEST_EXTRAS))
	-$(BIN)/pip install --quiet $(PIP_ARGS) --no-deps ns3==3.44.post0 || \
	    echo "ns-3 is not installed: simulations of the data centre are not tested" >&2

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,docs)
