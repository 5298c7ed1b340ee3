"""What a tracker is told, and the one that tells nobody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol

if TYPE_CHECKING:  # every command imports this page, before Ctrl-C ends tidily
    import numpy as np


@dataclass(frozen=True)
class Report:
    """What is worth a chart of the best weights, of ``step``, on dev.

    Probabilities (N, C), labels (N,), sentences; these are empty where they are not known any more.
    """

    step: int
    labels: tuple[str, ...]
    probabilities: np.ndarray
    gold: np.ndarray
    sentence1: list[str]
    sentence2: list[str]
    weights: Optional[Path] = None


class Tracker(Protocol):
    """A run begins, rows are logged, a report follows, the run ends; in this order, from one thread."""

    def log(self, row: dict[str, Any]) -> None:
        """One row of metrics.jsonl."""

    def summary(self, best: dict[str, Any]) -> None:
        """The figures of the best evaluation so far."""

    def report(self, report: Report) -> None:
        """Charts and tables of the best weights."""

    def tag(self, tag: str) -> None:
        """A label that the run has earned, before it is finished."""

    def finish(self, exit_code: int) -> None:
        """The run is over; 0 when it went well."""


class NullTracker:
    """Tells nobody."""

    def log(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def summary(self, best: dict[str, Any]) -> None:
        """Nothing."""

    def report(self, report: Report) -> None:
        """Nothing."""

    def tag(self, tag: str) -> None:
        """Nothing."""

    def finish(self, exit_code: int) -> None:
        """Nothing."""
