"""The contestants: one module each, with ``train(work, clock) -> loss`` and ``evaluate(work, clock) -> accuracy``.

All load the same weights, train on the same pairs in batches of the same size with AdamW at 1e-5, linear decay,
cross-entropy and dropout, and shuffle anew each epoch. What they do beside that is what is compared.
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
    """What a contestant's module holds."""

    def train(self, work: Work, clock: Clock) -> float:
        """Train, telling the clock each step; returns a mean of the loss over the last steps."""

    def evaluate(self, work: Work, clock: Clock) -> float:
        """Score the warm-up pairs, then start the clock, score the dev pairs from their strings, stop it."""


def load(name: str) -> Contestant:
    """A contestant by name; its libraries are imported now. ``afqmc-without-PART`` is ours less a part."""
    if name.startswith(PART):
        from benchmarks.contestants.afqmc_without import Without

        return Without(name.removeprefix(PART))
    return importlib.import_module(f"benchmarks.contestants.{CONTESTANTS[name]}")  # type: ignore[return-value]
