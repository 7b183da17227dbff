# make demo    a virtual environment with the package in it, then the quickstart
# make test    the same with the tools of the tests, then style, types and tests
# make schema  write the JSON Schema of scenario files again, after a change of their fields

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: demo test schema

demo: $(VENV)/.installed
	$(BIN)/pplr-audit run quickstart

# One thread a worker: two workers with a thread pool each would only fight for the cores.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

schema: $(VENV)/.installed
	$(BIN)/python -m pplr_audit.scenario_schema > scenarios/scenario.schema.json

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed
