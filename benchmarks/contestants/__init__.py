"""The contestants: one module each, with ``train(work, clock) -> loss`` and ``evaluate(work, clock) -> accuracy``.

All load the same weights and train on the same pairs, in batches of the same size, with AdamW at 1e-5, linear decay,
cross-entropy and dropout, shuffled in each epoch. Everything else may differ, and is what the benchmark compares.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from benchmarks.clock import Clock
from benchmarks.work import Work

CONTESTANTS = {
    "tutorial": "tutorial",
    "accelerate-example": "accelerate_example",
    "hf-trainer": "hf_trainer",
    "lightning": "lightning_trainer",
    "cross-encoder": "cross_encoder",
    "afqmc": "afqmc_run",
}


PART = "afqmc-without-"


class Contestant(Protocol):
    """The interface of a contestant's module."""

    def train(self, work: Work, clock: Clock) -> float:
        """Train, call ``clock.on_step_end`` after each step, and return a mean loss of the last steps."""

    def evaluate(self, work: Work, clock: Clock) -> float:
        """Evaluate the warm-up pairs, then time the evaluation of the dev pairs; return their accuracy."""


def load(name: str) -> Contestant:
    """Import a contestant by name. ``afqmc-without-PART`` is afqmc with one optimisation disabled."""
    if name.startswith(PART):
        from benchmarks.contestants.afqmc_without import Without

        return Without(name.removeprefix(PART))
    return importlib.import_module(f"benchmarks.contestants.{CONTESTANTS[name]}")  # type: ignore[return-value]
