"""The tracker interface, and the tracker that does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # every command imports this module before Ctrl-C is handled, so it must import fast
    import numpy as np


@dataclass(frozen=True)
class DevPredictions:
    """Predictions of the best weights on dev, for charts.

    Attributes:
        step: The training step of the weights.
        labels: The names of the C classes.
        probabilities: Shape (N, C).
        gold: The class index of each pair, shape (N,).
        sentence1: The first sentences; empty if they are not available.
        sentence2: The second sentences; empty as well then.
        weights: The directory of the weights, to upload.
    """

    step: int
    labels: tuple[str, ...]
    probabilities: np.ndarray
    gold: np.ndarray
    sentence1: Sequence[str]
    sentence2: Sequence[str]
    weights: Path | None = None


class Tracker(Protocol):
    """Receives the metrics of one run. All calls come from one thread; ``finish`` is the last one."""

    def log(self, row: dict[str, Any]) -> None:
        """Log one row of metrics.jsonl."""

    def log_summary(self, best: dict[str, Any]) -> None:
        """Log the metrics of the best evaluation so far."""

    def report(self, report: DevPredictions) -> None:
        """Log charts and tables of the best weights."""

    def tag(self, tag: str) -> None:
        """Add a tag to the run."""

    def finish(self, exit_code: int) -> None:
        """End the run; an exit code other than 0 marks it as failed."""


class NullTracker:
    """A tracker that does nothing."""

    def log(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def log_summary(self, best: dict[str, Any]) -> None:
        """Do nothing."""

    def report(self, report: DevPredictions) -> None:
        """Do nothing."""

    def tag(self, tag: str) -> None:
        """Do nothing."""

    def finish(self, exit_code: int) -> None:
        """Do nothing."""
