"""A measurement in a process of its own: ``python -m benchmarks.worker JOB.json``, which writes its result beside it.

It imports next to nothing before the contestant does, since the time to the first step counts from the start of
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
    """Do what a job says; returns the figures."""
    work = Work.of(job["work"])
    if job["kind"] == "checkpoint":
        return checkpoint(job)
    if job["kind"] == "floor":
        from benchmarks.floor import measure_floor

        return measure_floor(work.model, work.data).to_row()
    contestant = load(job["contestant"])
    clock = Clock(work.steps_per_epoch, work.steps, job["spawned"])
    if job["kind"] == "eval":
        return evaluated(work, clock, contestant.evaluate(work, clock))
    return trained(work, clock, contestant.train(work, clock))


def checkpoint(job: dict[str, Any]) -> dict[str, Any]:
    """Make the weights that the other workers load."""
    from benchmarks.work import ARCHITECTURES, make_checkpoint

    make_checkpoint(Path(job["model_dir"]), ARCHITECTURES[job["model"]], Path(job["work"]["model"]))
    return {}


def trained(work: Work, clock: Clock, loss: float) -> dict[str, Any]:
    """The figures of a training, which must have done all of the work."""
    assert clock.step == work.steps, f"{clock.step} steps instead of {work.steps}"
    assert math.isfinite(loss), f"the loss is {loss}"
    found = {"loss": round(loss, 4), "peak_mib": clock.peak_mib, "first_step_seconds": clock.first_step_seconds}
    if clock.seconds is None:
        return found
    pairs = work.pairs * (work.epochs - 1)
    return {**found, "pairs": pairs, "seconds": clock.seconds, "pairs_per_second": pairs / clock.seconds}


def evaluated(work: Work, clock: Clock, accuracy: float) -> dict[str, Any]:
    """The figures of an evaluation."""
    assert clock.seconds is not None
    return {
        "accuracy": round(accuracy, 4), "peak_mib": clock.peak_mib, "pairs": work.eval_pairs,
        "seconds": clock.seconds, "pairs_per_second": work.eval_pairs / clock.seconds,
    }  # fmt: skip


def main() -> None:
    """Read the job, measure, write."""
    path = Path(sys.argv[1])
    result = measure(json.loads(path.read_text(encoding="utf-8")))
    path.with_suffix(".result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
