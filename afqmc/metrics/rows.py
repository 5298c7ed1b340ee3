"""Predictions as the rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def prediction_rows(
    ids: Sequence[int | str], probabilities: np.ndarray, gold: Sequence[int] | np.ndarray | None, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """A row a pair: id, probability (of the second label where there are two, else of each), prediction, gold label.

    Args:
        ids: Of the N pairs.
        probabilities: (N, C).
        gold: Class indices (N,), where they are known.
        labels: The C label names in class order.
    """
    rows = []
    for number, (identity, row) in enumerate(zip(ids, probabilities, strict=True)):
        probability = float(row[1]) if len(labels) == 2 else [float(value) for value in row]
        found = {"id": identity, "probability": probability, "prediction": labels[int(row.argmax())]}
        found |= {} if gold is None else {"label": labels[gold[number]]}
        rows.append(found)
    return rows
