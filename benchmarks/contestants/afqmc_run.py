"""Ours, as the command line gives it by default: only paths and sizes are set."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import ClassVar

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import StepEnd
from benchmarks.clock import Clock
from benchmarks.work import Work


def overrides(work: Work, run_dir: Path, log_steps: int, more: tuple[str, ...]) -> list[str]:
    """What a person would type, and one evaluation alone: after the last step."""
    steps = [] if work.max_steps is None else [f"trainer.max_steps={work.max_steps}"]
    return [
        f"dataset.path={work.data}",
        f"dataset.max_train_samples={work.pairs}",
        "dataset.max_dev_samples=64",
        "dataset.max_test_samples=64",
        f"model.name_or_path={work.model}",
        f"batch_size={work.batch_size}",
        f"epochs={work.epochs}",
        "tracker=none",
        f"trainer.eval_steps={work.steps}",
        f"trainer.logging_steps={log_steps}",
        f"hydra.run.dir={run_dir}",
        *steps,
        *more,
    ]


class StepClock(Callback):
    """Reads the clock of the measurement after each step that has a row of metrics."""

    clock: ClassVar[Clock]

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Read it."""
        if event.metrics is not None:
            self.clock.reach(event.step)


def command(arguments: list[str]) -> None:
    """``python -m afqmc.run ARGUMENTS`` in this process, whatever it sets at its start included."""
    sys.argv = ["afqmc.run", *arguments]
    try:
        runpy.run_module("afqmc.run", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"afqmc.run ended with {end.code}") from end


def train(work: Work, clock: Clock, *more: str) -> float:
    """A whole run, its rows of training figures timed as they are written; returns the last row's loss.

    A row an epoch is written, or one after the first step where that alone is wanted.
    """
    run_dir = work.scratch / "run"
    StepClock.clock = clock
    logging_steps = min(work.steps, work.steps_per_epoch)
    command(overrides(work, run_dir, logging_steps, (f"+callbacks.clock._target_={__name__}.StepClock", *more)))
    assert (run_dir / "summary.json").exists(), "the run is not complete"
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row][-1]


def evaluate(work: Work, clock: Clock, *more: str) -> float:
    """What ``afqmc.evaluate RUN_DIR --data FILE`` does, on the run directory of a single step."""
    run_dir = work.scratch / "run"
    one_step = Work(**{**vars(work), "pairs": 32, "batch_size": 32, "epochs": 1, "max_steps": None})
    command(overrides(one_step, run_dir, 1, more))
    from afqmc.inference.predictor import Predictor

    trained = Predictor.load(run_dir)
    files = {"warm-up": (work.eval_pairs, 2 * work.eval_pairs), "dev": (0, work.eval_pairs)}
    lines = (work.data / "dev.json").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, rows in files.items():
        (work.scratch / f"{name}.jsonl").write_text("".join(lines[slice(*rows)]), encoding="utf-8")
    trained.evaluate(trained.read_pairs(work.scratch / "warm-up.jsonl", labelled=True))
    clock.start()
    found = trained.evaluate(trained.read_pairs(work.scratch / "dev.jsonl", labelled=True))
    clock.stop()
    return found.metrics["accuracy"]
