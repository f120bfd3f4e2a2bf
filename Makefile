# make demo: install and search; make test: install and check; make test-slow: the tests that take minutes, which CI runs, too.
PYTHON ?= python3
BIN = .venv/bin

demo: .venv/installed
	$(BIN)/ablate study --space layers_bits

test: .venv/tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not alone and not slow'
	$(BIN)/pytest -m 'alone and not slow'

test-slow: .venv/tested
	$(BIN)/pytest -m slow

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

.PHONY: demo test test-slow format
