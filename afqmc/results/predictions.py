"""Predictions of a run on a labelled split, checked against the figures in its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.evaluation.metrics import log_probabilities_of
from afqmc.results.prediction_table import PredictionTable, concat_folds, mean_of
from afqmc.results.resampled_metrics import LabelledPredictions, resampled_metric
from afqmc.results.runs import Run
from afqmc.utils.errors import InputError
from afqmc.utils.language import message_of, msg

_TOLERANCE = 1e-4  # relative; resample weights are float32
# 1 - p has an absolute error of about 2**-53; below this probability the relative error exceeds 2**-13
_ROUNDED = 2.0**-40


@dataclass(frozen=True)
class Predictions:
    """Predictions on a labelled split.

    Attributes:
        rows: Ids, classes, probabilities.
        answers: The same in the form that metrics take.
    """

    rows: PredictionTable
    answers: LabelledPredictions

    @classmethod
    def of(cls, run: Run, metric: str) -> Predictions:
        """Read a run's predictions on the split of ``metric``, which is given as ``split/name``.

        Raises:
            InputError: If they cannot be read, or do not give the recorded value of the metric.
        """
        split, _, name = metric.partition("/")
        file = f"predictions/{split}.jsonl"
        rows = PredictionTable.of(run, split)
        try:
            predictions = cls(rows, rows.answers())
        except InputError as error:
            raise InputError(msg("{file}: {why}", file=file, why=message_of(error))) from error
        if name in DECIDED_NAMES and rows.calibrated is None:
            raise InputError(msg("{file}: has no calibrated probabilities", file=file))
        recorded = run.figures.get(metric)
        value = predictions.compute(name)
        if name == "loss" and not rows.is_exact and not _is_close(value, recorded):
            predictions = predictions.with_loss(recorded)
            value = predictions.compute(name)
        if not _is_close(value, recorded):
            recorded_text = msg("undefined") if recorded is None else f"{recorded:.6f}"
            raise InputError(
                msg(
                    "{file} gives {metric} {value:.6f}, summary.json says {recorded}",
                    file=file,
                    metric=metric,
                    value=value,
                    recorded=recorded_text,
                )
            )
        return predictions

    def compute(self, name: str) -> float:
        """Return a metric over all rows."""
        return float(resampled_metric(name, [self.answers], np.ones((len(self.rows.ids), 1), dtype=np.float32)).item())

    def with_loss(self, recorded: float | None) -> Predictions:
        """Return predictions adjusted to the recorded loss, for a run that stored rounded probabilities, not logits.

        If the probability of the true label was rounded to about 0, the loss of that pair is unknown. The recorded loss
        minus that of the other pairs is divided evenly among these pairs, unless it is too small for that.
        """
        gold, logs = self.answers.gold, log_probabilities_of(self.rows.logits)
        gold_logs = logs[np.arange(len(gold)), gold]
        unknown = gold_logs < np.log(_ROUNDED)
        if recorded is None or not unknown.any():
            return self
        per_pair = -(recorded * len(gold) + gold_logs[~unknown].sum()) / unknown.sum()
        if per_pair > np.log(_ROUNDED):
            return self
        logs[unknown, gold[unknown]] = per_pair
        rows = replace(self.rows, logits=logs)
        return Predictions(rows, rows.answers())

    @classmethod
    def of_folds(cls, folds: Sequence[Predictions], split: str) -> Predictions:
        """Combine the folds of a seed: concatenate on dev, where each has its own pairs, and average on other splits.

        Raises:
            InputError: If they cannot be combined.
        """
        combined = (concat_folds if split == "dev" else mean_of)([fold.rows for fold in folds])
        return cls(combined, combined.answers())

    @property
    def examples_digest(self) -> str:
        """SHA-256 of ids, classes and true labels: equal for runs evaluated on the same examples."""
        examples: tuple[Any, ...] = (self.rows.ids, self.rows.classes, self.answers.gold.tolist())
        return sha256(repr(examples).encode()).hexdigest()

    def differs_from(self, other: Predictions) -> str | None:
        """Describe the first difference in ids, classes or labels, or return None if there is none."""
        return self.rows.differs_from(other.rows)


def _is_close(value: float, recorded: float | None) -> bool:
    return recorded is not None and abs(value - recorded) < _TOLERANCE * max(1, abs(recorded))
