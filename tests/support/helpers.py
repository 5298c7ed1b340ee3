"""Helpers of several tests: a config small enough to train in a second, and commands in a subprocess."""

import json
import os
import subprocess
import sys
from pathlib import Path

from afqmc.config import Config, compose
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.setup import TrainingSetup, build_setup

PATIENCE_S = 900.0  # far more than anything takes on a busy machine: only a process that hangs takes as long

SMALL = (
    "experiment=quickstart",
    "tracker=none",
    "dataset.max_train_samples=96",
    "dataset.max_dev_samples=64",
    "dataset.max_test_samples=16",
    "batch_size=8",
    "epochs=2",
    "trainer.mixed_precision=no",
    "trainer.logging_steps=1",
    "model.config_overrides.hidden_size=32",
    "model.config_overrides.intermediate_size=64",
)


def small(*overrides: str) -> Config:
    """Return the quickstart config with a smaller model and fewer pairs, and with dropout."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout = [f"model.config_overrides.{name}=0.1" for name in names]
    return compose([*SMALL, *dropout, *overrides])


def train(directory: Path, *overrides: str) -> RunDir:
    """Run the small config in a directory."""
    run_dir = RunDir(directory)
    run_experiment(small(*overrides), run_dir)
    return run_dir


def prepared(directory: Path, *overrides: str) -> TrainingSetup:
    """Return the parts of a run before training."""
    directory.mkdir(parents=True, exist_ok=True)
    return build_setup(small(*overrides), RunDir(directory))


def rows(run_dir: RunDir, key: str) -> list[float]:
    """Return the values of a metric in metrics.jsonl, in order."""
    lines = (run_dir.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[key] for row in map(json.loads, lines) if key in row]


def summary(run_dir: RunDir) -> dict:
    """Read summary.json."""
    return json.loads(run_dir.summary.read_text(encoding="utf-8"))


# Replaces sys.executable before -m MODULE or -c CODE: a fork of the process in warm_process.py. Tests of how a process
# starts use sys.executable.
PYTHON = os.environ.get("AFQMC_WARM_PYTHON", sys.executable)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command line of this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1", **more}


def command(module: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = PATIENCE_S):
    """Run ``python -m afqmc.MODULE ARGUMENTS`` in a new process."""
    return subprocess.run(
        [PYTHON, "-m", f"afqmc.{module}", *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
