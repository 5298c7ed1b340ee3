"""What a run said of each example, held to its own summary; and whether two runs were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from afqmc.comparison.measures import Answers, measure
from afqmc.comparison.rows import Rows, averaged, joined
from afqmc.comparison.runs import Run
from afqmc.comparison.said import said, why
from afqmc.errors import InputError

_CLOSE = 1e-4  # probabilities are written whole; the loss of a certain one is the least exact


@dataclass(frozen=True)
class Predictions:
    """Rows of one labelled split.

    Attributes:
        rows: Ids, classes, probabilities.
        answers: The same as metrics take them.
    """

    rows: Rows
    answers: Answers

    @classmethod
    def of(cls, run: Run, metric: str) -> Predictions:
        """A run's, of the split that ``metric``, as ``split/name``, is about.

        Raises:
            InputError: when they cannot be read, or do not give the figure that the run recorded.
        """
        split, _, name = metric.partition("/")
        file = f"predictions/{split}.jsonl"
        rows = Rows.of(run, split)
        try:
            found = cls(rows, rows.answers())
        except InputError as error:
            raise InputError(said("{file}: {why}", file=file, why=why(error))) from error
        value = measure(name, [found.answers], np.ones((len(rows.ids), 1), dtype=np.float32)).item()
        recorded = run.figures.get(metric)
        if recorded is None or not abs(value - recorded) < _CLOSE * max(1, abs(recorded)):
            told = said("undefined") if recorded is None else f"{recorded:.6f}"
            raise InputError(
                said(
                    "{file} gives {metric} {value:.6f}, summary.json says {recorded}",
                    file=file,
                    metric=metric,
                    value=value,
                    recorded=told,
                )
            )
        return found

    @classmethod
    def of_folds(cls, parts: Sequence[Predictions], split: str) -> Predictions:
        """The folds of a seed as one: on dev each said its own part of the examples, on other splits all of them.

        Raises:
            InputError: where they do not fit together.
        """
        together = (joined if split == "dev" else averaged)([part.rows for part in parts])
        return cls(together, together.answers())

    @property
    def asked(self) -> str:
        """The same for runs that were asked the same: ids, classes and true labels."""
        told: tuple[Any, ...] = (self.rows.ids, self.rows.classes, self.answers.gold.tolist())
        return sha256(repr(told).encode()).hexdigest()

    def differs_from(self, other: Predictions) -> str | None:
        """Where the other run was asked something else, in words; None where it was asked the same."""
        return self.rows.differs_from(other.rows)
