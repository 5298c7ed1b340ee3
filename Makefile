# What is run often; each target is one command.
.PHONY: format lint types test test-slow soak wheel bench

format:
	ruff format .
	ruff check --fix .

lint:
	ruff format --check .
	ruff check .

types:
	mypy

test:
	python -m pytest -q

test-slow: # the full-size parity proof, W&B servers that fail, the README's trainings: some minutes
	python -m pytest -q -m slow

soak: # kills runs at 100 random moments and holds what they become to a run that was never killed: about 10 minutes
	cd tests && python soak.py

wheel:
	python -m hatchling build -t wheel

bench: # most of an hour on 2 cores; AFQMC_DATA and MODEL_DIR name directories; needs pip install -e '.[bench]'
	python -m benchmarks.speed --model-dir $(MODEL_DIR)
