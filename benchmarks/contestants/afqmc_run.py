"""afqmc with its default config; only paths and sizes are set."""

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


def build_overrides(work: Work, run_dir: Path, logging_steps: int, extra: tuple[str, ...]) -> list[str]:
    """Return the overrides of a run with a single evaluation, after the last step."""
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
        f"trainer.logging_steps={logging_steps}",
        f"hydra.run.dir={run_dir}",
        *steps,
        *extra,
    ]


class StepClock(Callback):
    """Reports to the clock each step that has a row of metrics."""

    clock: ClassVar[Clock]

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Report the step."""
        if event.metrics is not None:
            self.clock.on_step_end(event.step)


def run_command(arguments: list[str]) -> None:
    """Run ``python -m afqmc.run ARGUMENTS`` in this process, including its process-wide settings."""
    sys.argv = ["afqmc.run", *arguments]
    try:
        runpy.run_module("afqmc.run", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"afqmc.run ended with {end.code}") from end


def train(work: Work, clock: Clock, *extra: str) -> float:
    """Run a complete run and return the loss of its last row of metrics.

    The clock gets the steps that have a row: one per epoch, or the first step if it is the only one.
    """
    run_dir = work.scratch / "run"
    StepClock.clock = clock
    logging_steps = min(work.steps, work.steps_per_epoch)
    clock_callback = f"+callbacks.clock._target_={__name__}.StepClock"
    run_command(build_overrides(work, run_dir, logging_steps, (clock_callback, *extra)))
    assert (run_dir / "summary.json").exists(), "the run is not complete"
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row][-1]


def evaluate(work: Work, clock: Clock, *extra: str) -> float:
    """Evaluate as ``afqmc.evaluate RUN_DIR --data FILE`` does, with the run directory of a one-step training."""
    run_dir = work.scratch / "run"
    one_step = Work(**{**vars(work), "pairs": 32, "batch_size": 32, "epochs": 1, "max_steps": None})
    run_command(build_overrides(one_step, run_dir, 1, extra))
    from afqmc.inference.predictor import Predictor

    predictor = Predictor.load(run_dir)
    ranges = {"warm-up": (work.eval_pairs, 2 * work.eval_pairs), "dev": (0, work.eval_pairs)}
    lines = (work.data / "dev.json").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, rows in ranges.items():
        (work.scratch / f"{name}.jsonl").write_text("".join(lines[slice(*rows)]), encoding="utf-8")
    predictor.evaluate(predictor.read_pairs(work.scratch / "warm-up.jsonl", labelled=True))
    clock.start()
    evaluation = predictor.evaluate(predictor.read_pairs(work.scratch / "dev.jsonl", labelled=True))
    clock.stop()
    return evaluation.metrics["accuracy"]
