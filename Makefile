# `make run` and `make test` set up .venv by themselves; nothing else is needed but Python 3.11 or newer, make and a package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint types ui bench setup lock clean

run: setup
	$(BIN)/nfl-lora run

test: lint types
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

ui: setup
	$(BIN)/nfl-lora ui

# Measurements that take minutes to an hour, on real weeks: make bench DATA=folder-in-upstream's-layout
DATA ?= data/raw
bench: setup
	$(BIN)/python benchmarks/warm_start.py --data-dir $(DATA) --weeks 1-10

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# Writes the lock file anew (needs uv).
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -o requirements.lock

clean:
	rm -rf .venv build *.egg-info
