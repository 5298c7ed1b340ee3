"""The process of one measurement: ``python -m benchmarks.worker JOB.json`` writes JOB.result.json.

It imports as little as possible before the contestant does, because the time to the first step counts from the start of
the process.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.clock import Clock
from benchmarks.contestants import load
from benchmarks.work import Work


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job and return its results."""
    work = Work.from_json(job["work"])
    if job["kind"] == "checkpoint":
        return save_checkpoint(job)
    if job["kind"] == "floor":
        from benchmarks.floor import measure_floor

        return measure_floor(work.model, work.data).to_row()
    contestant = load(job["contestant"])
    clock = Clock(work.steps_per_epoch, work.steps, job["spawned"])
    if job["kind"] == "eval":
        return evaluation_result(work, clock, contestant.evaluate(work, clock))
    return training_result(work, clock, contestant.train(work, clock))


def save_checkpoint(job: dict[str, Any]) -> dict[str, Any]:
    """Save the random weights that the other workers load."""
    from benchmarks.work import ARCHITECTURES, make_checkpoint

    make_checkpoint(Path(job["model_dir"]), ARCHITECTURES[job["model"]], Path(job["work"]["model"]))
    return {}


def training_result(work: Work, clock: Clock, loss: float) -> dict[str, Any]:
    """Check that the training did all its steps, and return its results."""
    assert clock.step == work.steps, f"{clock.step} steps instead of {work.steps}"
    assert math.isfinite(loss), f"the loss is {loss}"
    result = {"loss": round(loss, 4), "peak_mib": clock.peak_mib, "first_step_seconds": clock.first_step_seconds}
    if clock.seconds is None:
        return result
    pairs = work.pairs * (work.epochs - 1)
    return {**result, "pairs": pairs, "seconds": clock.seconds, "pairs_per_second": pairs / clock.seconds}


def evaluation_result(work: Work, clock: Clock, accuracy: float) -> dict[str, Any]:
    """Return the results of an evaluation."""
    assert clock.seconds is not None
    return {
        "accuracy": round(accuracy, 4), "peak_mib": clock.peak_mib, "pairs": work.eval_pairs,
        "seconds": clock.seconds, "pairs_per_second": work.eval_pairs / clock.seconds,
    }  # fmt: skip


def main() -> None:
    """Read the job, run it, and write the result."""
    path = Path(sys.argv[1])
    result = measure(json.loads(path.read_text(encoding="utf-8")))
    path.with_suffix(".result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
