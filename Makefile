# What is run often; each target is one command.
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

test-slow: # the full-size parity proof, W&B servers that fail, the README's trainings: some minutes
	python -m pytest -q -m slow

soak: # kills runs at 100 random moments and holds what they become to a run that was never killed: half an hour at most
	cd tests && python soak.py

HOSTS ?= 2
multinode: # one run over hosts that are network namespaces, one of them cut off: some minutes, needs root and iproute2
	python tests/multinode.py --hosts $(HOSTS)

SEED ?= $(shell date +%s)
fuzz: # thousands of damaged files and odd overrides, some minutes; SEED=N tries those of another time again
	@echo "SEED=$(SEED)"
	FUZZ=long python -m pytest -q -m '' --hypothesis-seed=$(SEED) --timeout=1800 tests/test_fuzz_files.py tests/test_fuzz_overrides.py

wheel:
	python -m hatchling build -t wheel

bench: # more than an hour on 2 cores; AFQMC_DATA and MODEL_DIR name directories; needs pip install -e '.[bench]'
	python -m benchmarks.speed --model-dir $(MODEL_DIR)
