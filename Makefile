# `make` alone says what there is.
PYTHON ?= python3.11
BIN := .venv/bin

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# Installed once: again only when a pin changes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed  ## make .venv and install the project with its pinned dependencies

test: .venv/installed  ## lint, types and every fast test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

test-all: .venv/installed  ## the slow tests too
	$(BIN)/pytest -m ''

lock: .venv/installed  ## write the installed versions to constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

.PHONY: help install test test-all lock
