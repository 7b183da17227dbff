# make demo    a virtual environment with the package in it, then the quickstart
# make test    the same with the tools of the tests, then style, types and tests
# make schema  write the JSON Schema of scenario files again, after a change of their fields

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a shell has set decides nothing: every program gets the few variables that .ci/alone names.
ALONE := .ci/alone
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: demo test schema

demo: $(VENV)/.installed
	$(ALONE) TERM="$${TERM:-dumb}" $(BIN)/pplr-audit run quickstart

# One thread a worker: two workers with a thread pool each would only fight for the cores.
# A file of tests stays with one worker, so that what its tests share is made once.
test: $(VENV)/.installed-test
	$(ALONE) $(BIN)/ruff check .
	$(ALONE) $(BIN)/ruff format --check .
	$(ALONE) $(BIN)/mypy
	$(ALONE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

schema: $(VENV)/.installed
	$(ALONE) $(BIN)/python -m pplr_audit.scenario.json_schema > scenarios/scenario.schema.json

$(VENV)/.made:
	$(ALONE) $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(ALONE) $(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(ALONE) $(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.made
	$(ALONE) $(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed
