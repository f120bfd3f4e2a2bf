# make demo: install and search. make check: all that is quick. make test: the tests of about a quarter of an hour.
# make test-slow: those that take longer; make test-all: both, as CI runs them.
PYTHON ?= python3
BIN = .venv/bin

demo: .venv/installed
	$(BIN)/ablate study --space layers_bits

lint: .venv/tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not long and not alone and not slow'

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not alone and not slow'
	$(BIN)/pytest -m 'alone and not slow'

test-slow: .venv/tested
	$(BIN)/pytest -rs -m slow

test-all: test test-slow

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

.PHONY: demo lint check test test-slow test-all format
