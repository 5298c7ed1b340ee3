"""Predictions as the rows of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import has_prediction, probabilities_of

LOGITS = "logits"  # a model's own
LOG_PROBABILITIES = "log_probabilities"  # of the mean of several models, which has no logits of its own


def prediction_rows(
    ids: Sequence[int | str],
    logits: np.ndarray,
    gold: Sequence[int] | np.ndarray | None,
    labels: Sequence[str],
    name: str = LOGITS,
) -> list[dict[str, Any]]:
    """One row per pair: id, logits, probability, prediction, and the label where it is known.

    ``probability`` is that of the second label where there are two, else a list of each label's. It rounds to 1 where
    logits are more than 36.7 apart, so metrics are computed from the logits. These are written with all digits of a
    float64, so that a reader gets them exactly with or without a conversion to float32. In a row with NaN or infinite
    logits these are null, and so are probability and prediction.

    Args:
        ids: Of the N pairs.
        logits: (N, C).
        gold: Class indices (N,), where they are known.
        labels: The C label names in class order.
        name: ``LOGITS``, or ``LOG_PROBABILITIES`` where the mean of several models is written.
    """
    probabilities = probabilities_of(logits)
    columns = zip(
        ids,
        logits.astype(np.float64).tolist(),
        (probabilities[:, 1] if len(labels) == 2 else probabilities).tolist(),
        logits.argmax(axis=1).tolist(),
        has_prediction(logits).tolist(),
        strict=True,
    )
    rows = []
    for number, (identity, of_labels, probability, predicted, is_known) in enumerate(columns):
        row: dict[str, Any] = {"id": identity, name: _finite(of_labels), "probability": None, "prediction": None}
        row |= {"probability": probability, "prediction": labels[predicted]} if is_known else {}
        rows.append(row if gold is None else row | {"label": labels[gold[number]]})
    return rows


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
