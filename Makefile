# Hostler. `make` alone shows what there is; `make demo` is the way in.
SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
BIN := .venv/bin
# `make test TESTS=tests/unit ARGS="-k lifecycle"` runs a part.
TESTS ?= tests
ARGS ?=

.PHONY: help venv demo down test lint format faults bench docs clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 10

venv: ## make .venv from requirements.lock (a no-op when it is current)
	@PYTHON="$(PYTHON)" deploy/make-venv

demo: venv ## start the stack, serve a tiny model with llama.cpp, ask it something
	@$(BIN)/hostler demo

down: ## stop everything that `make demo` or `hostler up` started
	@if [ -x $(BIN)/hostler ]; then $(BIN)/hostler down; else echo "nothing to stop: there is no .venv"; fi

test: venv ## all tests, on real Postgres, Redis and Celery workers
	@$(BIN)/python -m pytest $(TESTS) $(ARGS)

lint: venv ## ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: venv ## let ruff put imports and layout right
	@$(BIN)/ruff check --fix --select I .
	@$(BIN)/ruff format .

# `make faults SEEDS=1,2,3` or `SEEDS=1-20`; `PLANT=no_fencing` (or HOSTLER_FAULT_PLANT) plants a bug that must be found
faults: venv ## break a running stack by 200 seeded scripts, and see that nothing is lost
	@$(BIN)/python -m tests.faults.harness $(or $(SEEDS),1-200) $(if $(PLANT),--plant $(PLANT))

bench: venv ## all benchmarks, each against its floor (one: .venv/bin/python -m benchmarks NAME)
	@$(BIN)/python -m benchmarks all

docs: venv ## write the generated parts of README.md and docs/ anew
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m hostler.cli.reference > docs/cli.md

clean: ## remove .venv and caches (not the state dir)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
