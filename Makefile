# make demo and make test do all their set-up themselves; Python 3.11 or newer is all they need.
.DEFAULT_GOAL := help
.PHONY: help setup demo test long simulate mutants faults lint types bench requirements clean
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
# Container images often set it; every process that is started would compile all modules again, for two seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: ## the virtual environment, as requirements.txt pins it
	@deploy/setup.sh "$(PYTHON)"

demo: setup ## the whole path on this machine: DOCUMENTS=5000 KEEP= JSON=
	@$(BIN)/crossfade demo --documents $(or $(DOCUMENTS),5000) $(if $(KEEP),--keep) $(if $(JSON),--json)

lint: setup ## ruff, rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy, strict
	@$(BIN)/mypy

test: lint ## everything: lint, types, unit, contract, the exploration, flow on the real local stack
	@$(BIN)/python -m tests

long: setup ## the tests that make test leaves out: more cases, minutes each
	@$(BIN)/python -m pytest -m long

simulate: setup ## random histories of everything in memory: N=2000 FIRST=0, or one again with SEED=
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(N),2000) --first $(or $(FIRST),0))

faults: setup ## trials with real faults on the real local stack: N=60 SEED=1 ONLY="kafka"
	@$(BIN)/python -m tests.faults --trials $(or $(N),60) --seed $(or $(SEED),1) $(if $(ONLY),--only "$(ONLY)")

mutants: setup ## known wrong versions, one by one: which history and invariant catch each
	@$(BIN)/python -m tests.mutants

bench: setup ## the figures, each also as a JSON line on stdout
	@$(BIN)/python -m load.bench

requirements: setup ## pin again: names, versions and hashes, no addresses
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra stack --extra dev pyproject.toml -o requirements.txt

clean: ## the virtual environment and caches; the data folder stays
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
