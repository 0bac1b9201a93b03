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
TEST_EXTRAS := cli,torch,onnx,telemetry,sklearn,dask,tuning,kde,figures,tracking,imblearn,river,torchrl,sql,recipes,docs,dev
CORE_TESTS = $(filter-out $(addprefix tests/,cli integrations report runner __pycache__), \
               $(wildcard tests/test_*.py) $(patsubst %/,%,$(wildcard tests/*/)))

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit unit-uncompiled unit-avalanche unit-elsewhere core floors newest dist dist-check bench torture claims house docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/demo.stamp  ## a week of video streaming, memories compared, with a report in demo/
	$(BIN)/memento demo --out demo $(DEMO_ARGS)

test: lint unit unit-uncompiled unit-avalanche  ## everything that continuous integration checks

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

# In a folder of its own and without what it depends on, as its torchvision would replace PyTorch; only these tests see it.
AVALANCHE := avalanche-lib==0.6.0 torchvision==0.28.0 dill==0.4.1 gputil==1.4.0 gdown==6.5.1 beautifulsoup4==4.15.0 soupsieve==4.1.3 \
             pytorchcv==0.0.74 qpsolvers==4.13.0

unit-avalanche: $(VENV)/test.stamp  ## tests with Avalanche, if it can be had for this PyTorch
	@if $(BIN)/pip install --quiet $(PIP_ARGS) --no-deps --upgrade --target $(VENV)/avalanche $(AVALANCHE); then \
	    PYTHONPATH=$(VENV)/avalanche $(BIN)/pytest $(PYTEST_ARGS) tests/integrations/test_avalanche.py; \
	else echo "Avalanche cannot be installed here, so its storage policy is not tested" >&2; fi

# What other processors and thread counts make of float32 sums: BLAS, numpy, PyTorch, ONNX and the kernels are told to use less
# than this processor has. The kernels' cache is one of its own, as code compiled for another processor may not run here.
ELSEWHERE_TESTS ?= cases/puffer/tests/test_deploy.py cases/puffer/tests/test_ttp.py cases/puffer/tests/test_publish.py cases/puffer/tests/test_replay.py \
                   cases/puffer/tests/test_closed_loop.py cases/datacenter/tests/test_learner.py tests/integrations tests/training \
                   tests/kernels tests/policies tests/test_golden.py tests/test_density.py tests/test_distances.py tests/test_coverage.py
AVX2 = NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma,+bmi,+bmi2,+sse4.2,+popcnt,+f16c,+lzcnt,+movbe,+cx16 \
       NUMBA_CACHE_DIR=$(CURDIR)/.numba-avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell
SSE = ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem OMP_NUM_THREADS=2

unit-elsewhere: $(VENV)/test.stamp  ## tests of float results as on processors with AVX2 and with SSE 4 alone
	$(AVX2) $(BIN)/pytest -n $(WORKERS) $(PYTEST_ARGS) $(ELSEWHERE_TESTS)
	$(SSE) $(BIN)/pytest -n $(WORKERS) $(PYTEST_ARGS) $(ELSEWHERE_TESTS)

# Environments of other packages than constraints.txt names, each in a folder of its own that is made anew: minutes, so not part of
# `make test`. PyPI's PyTorch for Linux brings CUDA, so they do without it; FLOOR_EXTRAS and NEWEST_EXTRAS may name it.
TOOLS := pytest pytest-cov pytest-randomly pytest-timeout pytest-xdist hypothesis
FLOOR_EXTRAS ?= cli,onnx,telemetry,sklearn,dask,tuning,figures,tracking,imblearn,river,sql,dev
NEWEST_EXTRAS ?= $(FLOOR_EXTRAS)
QUICK_TESTS ?= tests/cli tests/integrations tests/report tests/policies tests/deployment tests/test_*.py

core: ENV := .venv-core
core:  ## the core's tests where only numpy and numba are installed
	$(fresh)
	$(ENV)/bin/pip install --quiet $(PIP_ARGS) -c constraints.txt -e . $(TOOLS)
	$(ENV)/bin/pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS) $(CORE_TESTS)

floors: ENV := .venv-floors
floors:  ## quick tests with the lowest versions that pyproject.toml allows
	$(fresh)
	$(ENV)/bin/python .ci/floors.py $(FLOOR_EXTRAS) > $(ENV)/floors.txt
	$(ENV)/bin/pip install --quiet $(PIP_ARGS) -r $(ENV)/floors.txt -e '.[$(FLOOR_EXTRAS)]' -e cases/puffer -e cases/datacenter
	$(ENV)/bin/pytest -n $(WORKERS) -m "not slow" -W ignore::DeprecationWarning -W ignore::FutureWarning $(PYTEST_ARGS) $(QUICK_TESTS)

newest: ENV := .venv-newest
newest:  ## quick tests with the newest versions that there are
	$(fresh)
	$(ENV)/bin/pip install --quiet $(PIP_ARGS) --upgrade -e '.[$(NEWEST_EXTRAS)]' -e cases/puffer -e cases/datacenter
	$(ENV)/bin/pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS) $(QUICK_TESTS)

dist: $(VENV)/test.stamp  ## the three distributions, as wheels and as sources, in dist/
	rm -rf dist
	for project in . cases/puffer cases/datacenter; do \
	    (cd $$project && $(abspath $(BIN))/python -m hatchling build -d $(CURDIR)/dist) || exit; done

# Wheels are what is installed, sources are what is tested: neither sees this checkout.
SDIST = memento_replay-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
dist-check: ENV := .venv-dist
dist-check: dist  ## installs the wheels elsewhere and runs quick tests from the sources
	$(BIN)/pytest -n 0 tests/test_distributions.py $(PYTEST_ARGS)
	$(fresh)
	$(ENV)/bin/pip install --quiet $(PIP_ARGS) -c constraints.txt twine $(TOOLS) dist/*.whl
	$(ENV)/bin/twine check --strict dist/*
	tar -xzf dist/$(SDIST).tar.gz -C $(ENV)
	cd $(ENV)/$(SDIST) && ../bin/memento --version && ../bin/memento puffer --help >/dev/null && \
	    ../bin/pytest -n $(WORKERS) -m "not slow and not compiled" $(PYTEST_ARGS) \
	    tests/policies tests/cli/test_memory.py tests/test_[abms]*.py

bench: $(VENV)/test.stamp  ## the table of speed and memory
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

torture: $(VENV)/test.stamp  ## kills, faults and bad input for an hour; TORTURE_ARGS="--minutes 2" for less
	PYTHONPATH=tests:cases/puffer/tests $(BIN)/python -m torture $(TORTURE_ARGS)

claims: $(VENV)/test.stamp  ## the cheap figures of README and docs/, measured anew and compared
	$(BIN)/python benchmarks/claims.py $(CLAIMS)

house: $(VENV)/test.stamp  ## the table of sizes: code lines, long functions, import circles
	$(BIN)/python benchmarks/house.py

docs: $(VENV)/docs.stamp  ## the documentation as a site in site/
	$(BIN)/zensical build --strict
	@echo "site/index.html"

clean:  ## remove the environment and everything made
	rm -rf $(VENV) .venv-core .venv-floors .venv-newest .venv-dist build dist site .cache demo torture-results .numba-avx2 .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
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

# An environment of its own, empty: $(fresh) makes $(ENV).
define fresh
	rm -rf $(ENV)
	$(PYTHON) -m venv $(ENV)
endef

# One recipe for all stamps: $(call install,extras). A stamp is younger than what it was made from, so the second time is instant.
define install
	$(BIN)/pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[$(1)]' -e cases/puffer -e cases/datacenter
	@touch $@
endef

$(VENV)/demo.stamp: pyproject.toml cases/puffer/pyproject.toml cases/datacenter/pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,$(DEMO_EXTRAS))

$(VENV)/test.stamp: pyproject.toml cases/puffer/pyproject.toml cases/datacenter/pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,$(TEST_EXTRAS))
	-$(BIN)/pip install --quiet $(PIP_ARGS) --no-deps ns3==3.44.post0 || \
	    echo "ns-3 is not installed: simulations of the data centre are not tested" >&2

$(VENV)/docs.stamp: pyproject.toml cases/puffer/pyproject.toml cases/datacenter/pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,docs)
