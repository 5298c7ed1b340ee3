# Frequent commands.
.PHONY: format lint types test test-slow soak multinode fuzz wheel bench

format:
	ruff format .
	ruff check --fix .

lint:
	ruff format --check .
	ruff check .

types:
	mypy

test:
	python -m pytest -q -n 2 --dist worksteal

test-slow: # full-size parity with the tutorial, failing W&B servers, the README's trainings; some minutes
	python -m pytest -q -m slow

soak: # kill runs at 100 random moments and compare the results with an uninterrupted run; half an hour at most
	cd tests && python soak.py

HOSTS ?= 2
multinode: # one run on several hosts (network namespaces), one of them disconnected; some minutes, needs root and iproute2
	python tests/multinode.py --hosts $(HOSTS)

SEED ?= $(shell date +%s)
fuzz: # thousands of damaged files and odd overrides; some minutes; SEED=N repeats an earlier run
	@echo "SEED=$(SEED)"
	FUZZ=long python -m pytest -q -m '' --hypothesis-seed=$(SEED) --timeout=1800 tests/test_fuzz_files.py tests/test_fuzz_overrides.py

wheel:
	python -m hatchling build -t wheel

bench: # more than an hour on 2 cores; set AFQMC_DATA and MODEL_DIR to directories; needs pip install -e '.[bench]'
	python -m benchmarks.speed --model-dir $(MODEL_DIR)
