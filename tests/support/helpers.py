"""Helpers of several tests: a config small enough to train in a second, and commands in a subprocess."""

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import Config, compose, to_config
from afqmc.config.overrides import quote_overrides
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


DROPOUT = ("model.config_overrides.hidden_dropout_prob=0.1", "model.config_overrides.attention_probs_dropout_prob=0.1")


def small(*overrides: str) -> Config:
    """Return the quickstart config with a smaller model and fewer pairs, and with dropout."""
    return quick_compose((*SMALL, *DROPOUT), *overrides)


def quick_compose(base: tuple[str, ...], *overrides: str, config_name: str = "config") -> Config:
    """Return ``compose([*base, *overrides], config_name=config_name)`` in a fifth of the time.

    Hydra composes the base and other options of groups once per process; values are then set in a copy.
    """
    values = [text for text in overrides if re.match(r"(\w+\.[\w.]+|lr|seed|epochs|batch_size)=", text)]
    node = deepcopy(_composed((*base, *(text for text in overrides if text not in values)), config_name))
    try:
        for override in OverridesParser.create().parse_overrides(quote_overrides(values)):
            OmegaConf.update(node, override.key_or_group, override.value(), merge=True, force_add=False)
    except (HydraException, OmegaConfBaseException):
        return compose([*base, *overrides], config_name=config_name)  # its message names the override
    return to_config(node)


@cache
def _composed(overrides: tuple[str, ...], config_name: str) -> DictConfig:
    node = OmegaConf.structured(compose(list(overrides), config_name=config_name))
    OmegaConf.set_struct(node, True)  # new keys are errors
    return node


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
