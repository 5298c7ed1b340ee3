"""What a run said of each example, held to its own summary; and whether two runs were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import log_probabilities_of
from afqmc.results.prediction_table import PredictionTable, concat_folds, mean_of
from afqmc.results.resampled_metrics import LabelledPredictions, resampled_metric
from afqmc.results.runs import Run
from afqmc.results.translatable import message_of, msg
from afqmc.utils.errors import InputError

_CLOSE = 1e-4  # the weights of resamples are float32
_ROUNDED = 2.0**-40  # a probability derived as 1 - p is that inexact, relatively, from 2**-53 / 2**-40 on


@dataclass(frozen=True)
class Predictions:
    """Rows of one labelled split.

    Attributes:
        rows: Ids, classes, probabilities.
        answers: The same as metrics take them.
    """

    rows: PredictionTable
    answers: LabelledPredictions

    @classmethod
    def of(cls, run: Run, metric: str) -> Predictions:
        """A run's, of the split that ``metric``, as ``split/name``, is about.

        Raises:
            InputError: when they cannot be read, or do not give the figure that the run recorded.
        """
        split, _, name = metric.partition("/")
        file = f"predictions/{split}.jsonl"
        rows = PredictionTable.of(run, split)
        try:
            found = cls(rows, rows.answers())
        except InputError as error:
            raise InputError(msg("{file}: {why}", file=file, why=message_of(error))) from error
        recorded = run.figures.get(metric)
        value = found.measured(name)
        if name == "loss" and not rows.is_exact and not _is_close(value, recorded):
            found = found.with_loss(recorded)
            value = found.measured(name)
        if not _is_close(value, recorded):
            told = msg("undefined") if recorded is None else f"{recorded:.6f}"
            raise InputError(
                msg(
                    "{file} gives {metric} {value:.6f}, summary.json says {recorded}",
                    file=file,
                    metric=metric,
                    value=value,
                    recorded=told,
                )
            )
        return found

    def measured(self, name: str) -> float:
        """A metric of all rows."""
        return float(resampled_metric(name, [self.answers], np.ones((len(self.rows.ids), 1), dtype=np.float32)).item())

    def with_loss(self, recorded: float | None) -> Predictions:
        """The same with the recorded loss, for a run that wrote rounded probabilities instead of logits.

        What the pairs whose label has a probability near 0 add to the loss is not known one by one. Together they add
        what the others leave of it, if that is as much as such probabilities allow.
        """
        gold, logs = self.answers.gold, log_probabilities_of(self.rows.logits)
        of_label = logs[np.arange(len(gold)), gold]
        unknown = of_label < np.log(_ROUNDED)
        if recorded is None or not unknown.any():
            return self
        each = -(recorded * len(gold) + of_label[~unknown].sum()) / unknown.sum()
        if each > np.log(_ROUNDED):
            return self
        logs[unknown, gold[unknown]] = each
        rows = replace(self.rows, logits=logs)
        return Predictions(rows, rows.answers())

    @classmethod
    def of_folds(cls, parts: Sequence[Predictions], split: str) -> Predictions:
        """The folds of a seed as one: on dev each said its own part of the examples, on other splits all of them.

        Raises:
            InputError: where they do not fit together.
        """
        together = (concat_folds if split == "dev" else mean_of)([part.rows for part in parts])
        return cls(together, together.answers())

    @property
    def asked(self) -> str:
        """The same for runs that were asked the same: ids, classes and true labels."""
        told: tuple[Any, ...] = (self.rows.ids, self.rows.classes, self.answers.gold.tolist())
        return sha256(repr(told).encode()).hexdigest()

    def differs_from(self, other: Predictions) -> str | None:
        """Where the other run was asked something else, in words; None where it was asked the same."""
        return self.rows.differs_from(other.rows)


def _is_close(value: float, recorded: float | None) -> bool:
    return recorded is not None and abs(value - recorded) < _CLOSE * max(1, abs(recorded))
