# `make demo` and `make test` set up what they need: Python 3.11+, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-all lint format bench lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, was " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## train, run the chain, verify and report on embedded real data
	$(BIN)/qt demo

test: $(STAMP)  ## lint, types and tests, ten minutes on two cores after set-up
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OPENBLAS_NUM_THREADS=1 $(TESTS) -m "not slow"  # two processes on two cores: NumPy's threads would wait for each other

test-all: $(STAMP)  ## every test, bounds checks and long property runs included
	$(BIN)/python -m pip install --quiet --only-binary=:all: "atheris>=3,<4" || echo "no wheel of atheris here: fuzzing by branches is skipped"
	HYPOTHESIS_PROFILE=new $(TESTS) --cov --cov-report=
	@echo "lines of research that the tests run: $$($(BIN)/python -m coverage report --format=total) %"
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/qtcore/test_engine.py tests/qtcore/test_trade.py tests/qtcore/test_features.py tests/qtcore/test_decide.py
	$(BIN)/python -m pytest tests/bench/bench_*.py  # once each, without measuring
	$(BIN)/python -m tests.vulnerabilities

lint: $(STAMP)  ## format check, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## measure speed and write the README's table
	@mkdir -p reports/bench
	$(BIN)/python -m pytest tests/bench/bench_*.py --benchmark-enable --benchmark-json=reports/bench/latest.json
	$(BIN)/python -m tests.bench.table reports/bench/latest.json

lock: $(STAMP)  ## write requirements.lock from what is installed
	(echo "--constraint requirements-cuda.lock"; $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude qtcore \
		$$(sed -n "s/==.*//p" requirements-cuda.lock | sed "s/^/--exclude /") | sed "s/+cpu$$//") > requirements.lock  # one torch for every platform

clean:  ## remove what was generated
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* reports/*/ *.egg-info
