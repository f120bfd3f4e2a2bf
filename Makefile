# make demo: install and search; make test: install and check everything, as CI does.
PYTHON ?= python3
BIN = .venv/bin

demo: .venv/installed
	$(BIN)/ablate study --space layers_bits

test: .venv/tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not alone'
	$(BIN)/pytest -m alone

format: .venv/tested
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

.PHONY: demo test format
