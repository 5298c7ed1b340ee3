"""What a run said of each example, held to its own summary; and whether two runs were asked the same."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from afqmc.comparison.files import read_list, read_rows
from afqmc.comparison.measures import Answers, measure
from afqmc.comparison.runs import Run
from afqmc.errors import InputError

_CLOSE = 1e-4  # probabilities are written whole; the loss of a certain one is the least exact


@dataclass(frozen=True)
class Predictions:
    """A run's rows of one split.

    Attributes:
        ids: Of the examples, in the split's order.
        classes: Label names in class order.
        answers: The rest.
    """

    ids: list[Any]
    classes: list[str]
    answers: Answers

    @classmethod
    def of(cls, run: Run, metric: str) -> Predictions:
        """Those of the split that ``metric``, as ``split/name``, is about.

        Raises:
            InputError: when they cannot be read, or do not give the figure that the run recorded.
        """
        split, _, name = metric.partition("/")
        file = f"predictions/{split}.jsonl"
        try:
            rows = read_rows(run.path / file)
            if len(rows) < 2:
                raise ValueError("holds too few rows to tell anything")
            found = cls._from_rows(rows, _classes(run, rows))
        except (KeyError, TypeError) as error:
            raise InputError(f"{file}: rows need id, probability, prediction and label") from error
        except ValueError as error:
            raise InputError(f"{file}: {str(error).removeprefix(f'{split}.jsonl: ')}") from error
        value = measure(name, [found.answers], np.ones((len(rows), 1), dtype=np.float32)).item()
        recorded = run.figures.get(metric)
        if recorded is None or not abs(value - recorded) < _CLOSE * max(1, abs(recorded)):
            told = "undefined" if recorded is None else f"{recorded:.6f}"
            raise InputError(f"{file} gives {metric} {value:.6f}, summary.json says {told}")
        return found

    @classmethod
    def _from_rows(cls, rows: list[dict[str, Any]], classes: list[str]) -> Predictions:
        number = {label: place for place, label in enumerate(classes)}
        given = np.array([row["probability"] for row in rows], dtype=np.float64)
        probabilities = np.stack([1 - given, given], axis=1) if given.ndim == 1 else given
        predicted = np.array([number[row["prediction"]] for row in rows])
        gold = np.array([number[row["label"]] for row in rows])
        if probabilities.shape != (len(rows), len(classes)) or len(classes) < 2:
            raise ValueError(f"probabilities of {len(classes)} classes were expected: {', '.join(classes)}")
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError("holds probabilities that are none")
        if not (probabilities[np.arange(len(rows)), predicted] >= probabilities.max(axis=1)).all():
            raise ValueError(f"holds predictions that are not the likeliest of {', '.join(classes)}")
        return cls([row["id"] for row in rows], classes, Answers(gold, predicted, probabilities))

    @property
    def asked(self) -> str:
        """The same for runs that were asked the same: ids, classes and true labels."""
        return sha256(repr((self.ids, self.classes, self.answers.gold.tolist())).encode()).hexdigest()

    def differs_from(self, other: Predictions) -> str | None:
        """Where the other run was asked something else, in words; None where it was asked the same."""
        if len(self.ids) != len(other.ids):
            return f"{len(other.ids)} pairs against {len(self.ids)}"
        if self.classes != other.classes:
            return f"labels {', '.join(other.classes)} against {', '.join(self.classes)}"
        for row, (one, two) in enumerate(zip(self.ids, other.ids, strict=True), 1):
            if one != two:
                return f"id {two!r} against {one!r} in line {row}"
        unlike = np.flatnonzero(self.answers.gold != other.answers.gold)
        if len(unlike):
            return f"label {other._label(unlike[0])!r} against {self._label(unlike[0])!r} in line {unlike[0] + 1}"
        return None

    def _label(self, row: Any) -> str:
        return self.classes[int(self.answers.gold[row])]


def _classes(run: Run, rows: list[dict[str, Any]]) -> list[str]:
    """Label names in class order: as saved with the weights, else as configured, else sorted as a run would."""
    saved = run.path / "checkpoints" / "best" / "labels.json"
    found = read_list(saved) if saved.exists() else run.config.get("dataset.labels")
    if found is None:
        found = sorted({row[key] for row in rows for key in ("label", "prediction")})
    if not isinstance(found, list) or len(set(map(str, found))) != len(found):
        raise ValueError("the label names of this run are not known")
    return [str(label) for label in found]
