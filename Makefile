# Frequent commands. Each first installs what it needs into .venv (scripts/setup.sh explains PYTHON and TORCH).
.PHONY: quickstart test test-all setup setup-dev setup-docs format lint types test-slow docs soak multinode fuzz wheel dist bench

python = .venv/bin/python

quickstart: setup # train on the embedded data, offline; under a minute on 2 cores once everything is installed
	$(python) -m afqmc.run experiment=quickstart tracker=none

test: setup # the default suite
	$(python) -m pytest -q -n 2 --dist worksteal

test-all: setup # the default suite and the slow tests
	$(python) -m pytest -q -n 2 --dist worksteal -m ''

test-slow: setup # full-size parity with the tutorial, failing W&B servers, the README's trainings; some minutes
	$(python) -m pytest -q -m slow

setup:
	@sh scripts/setup.sh test

setup-dev: setup
	@sh scripts/setup.sh dev

setup-docs: setup
	@sh scripts/setup.sh docs

format: setup-dev
	$(python) -m ruff format .
	$(python) -m ruff check --fix .

lint: setup-dev
	$(python) -m ruff format --check .
	$(python) -m ruff check .

types: setup-dev
	$(python) -m mypy

docs: setup-docs # the site, in site/
	$(python) -m mkdocs build --strict

soak: setup # kill runs at 100 random moments and compare the results with an uninterrupted run; half an hour at most
	$(python) tests/support/soak.py

HOSTS ?= 2
multinode: setup # one run on several hosts (network namespaces), one of them disconnected; some minutes, needs root and iproute2
	$(python) tests/support/multinode.py --hosts $(HOSTS)

SEED ?= $(shell date +%s)
fuzz: setup # thousands of damaged files and odd overrides; some minutes; SEED=N repeats an earlier run
	@echo "SEED=$(SEED)"
	FUZZ=long $(python) -m pytest -q -m '' --hypothesis-seed=$(SEED) --timeout=1800 tests/data/test_fuzz_files.py tests/e2e/test_fuzz_overrides.py

wheel: setup
	$(python) -m hatchling build -t wheel

dist: setup # the source archive and the wheel of a release, in dist/
	$(python) -m hatchling build

bench: # more than an hour on 2 cores; set AFQMC_DATA and MODEL_DIR to directories
	@sh scripts/setup.sh test,bench
	$(python) -m benchmarks.speed --model-dir $(MODEL_DIR)
