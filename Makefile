# make demo: the main job.   make test: the tests.   make check: tests, lint, format, types.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: demo test test-all check lint docs reliability clean

demo: $(STAMP)
	$(BIN)/sftn demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: test lint

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/python docs/architecture.py
	$(BIN)/mkdocs build --strict
	@echo "the site's first page: site/index.html"

# Half an hour or more: what docs/reliability.md has the tables of.
reliability: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m reliability.kills
	OMP_NUM_THREADS=1 $(BIN)/python -m reliability.writes
	OMP_NUM_THREADS=1 $(BIN)/python -m reliability.grid
	OMP_NUM_THREADS=1 $(BIN)/python -m reliability.inputs

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
