"""Convert logits to the rows of a prediction file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from afqmc.evaluation.decision import Decided
from afqmc.evaluation.metrics import has_prediction, probabilities_of

LOGITS = "logits"  # of one model
LOG_PROBABILITIES = "log_probabilities"  # of the mean of several models
CALIBRATED, DECIDED = "probability_calibrated", "prediction_decided"


def prediction_rows(
    ids: Sequence[int | str],
    logits: np.ndarray,
    gold: Sequence[int] | np.ndarray | None,
    labels: Sequence[str],
    name: str = LOGITS,
    decided: Decided | None = None,
) -> list[dict[str, Any]]:
    """Return one row per pair: id, logits, probability, prediction, and the label if it is known.

    ``probability`` is that of the second label if there are two, else a list with that of each label. Readers compute
    metrics from the logits, since a probability rounds to 1 if logits differ by more than 36.7. Logits are written with
    all digits of a float64, so float32 and float64 readers get them exactly. Logits that are NaN or infinite are null,
    and so are the probability and prediction of their row.

    Args:
        ids: The N ids.
        logits: (N, C).
        gold: Class indices (N,), or None if they are unknown.
        labels: The C label names, in class order.
        name: Column of the logits: ``LOGITS``, or ``LOG_PROBABILITIES`` for the mean of several models.
        decided: The outcome of the decision; adds ``probability_calibrated`` and ``prediction_decided``. The columns
            ``probability`` and ``prediction`` are those of the logits without it.
    """
    rows = _rows(ids, logits, probabilities_of(logits), logits.argmax(axis=1), labels, name)
    if decided is not None:
        outcomes = _rows(ids, logits, decided.probabilities, decided.predicted, labels, name)
        for row, outcome in zip(rows, outcomes, strict=True):
            row |= {CALIBRATED: outcome["probability"], DECIDED: outcome["prediction"]}
    if gold is not None:
        for index, row in enumerate(rows):
            row["label"] = labels[gold[index]]
    return rows


def _rows(
    ids: Sequence[int | str],
    logits: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[str],
    name: str,
) -> list[dict[str, Any]]:
    columns = zip(
        ids,
        logits.astype(np.float64).tolist(),
        (probabilities[:, 1] if len(labels) == 2 else probabilities).tolist(),
        predicted.tolist(),
        has_prediction(logits).tolist(),
        strict=True,
    )
    rows = []
    for identity, row_logits, probability, index, is_predicted in columns:
        row: dict[str, Any] = {
            "id": identity,
            name: _finite_or_none(row_logits),
            "probability": None,
            "prediction": None,
        }
        row |= {"probability": probability, "prediction": labels[index]} if is_predicted else {}
        rows.append(row)
    return rows


def add_groups(rows: list[dict[str, Any]], groups: np.ndarray) -> None:
    """Add ``group`` to the rows of pairs that share a sentence with others: the id of the first pair of the group.

    Args:
        rows: The N rows, in the order of the split.
        groups: The group of each pair, (N,).
    """
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    for row, group in zip(rows, inverse.tolist(), strict=True):
        if sizes[group] > 1:
            row["group"] = rows[first[group]]["id"]


def _finite_or_none(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
