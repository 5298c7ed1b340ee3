"""Figures of each class, the confusion matrix, and what to say where ranking and decisions disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import collapsed_class

_GOOD, _BAD = 0.75, 0.35  # an AUC that says that pairs are ranked well, or the wrong way round


def per_class(probabilities: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each class, and the confusion matrix (row: true, column: predicted).

    Args:
        probabilities: (N, C); a row with NaN has no prediction and is left out of the matrix.
        gold: Class indices (N,).
        labels: The C names.
    """
    known = np.isfinite(probabilities).all(axis=1)
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(matrix, (gold[known], probabilities[known].argmax(axis=1)), 1)
    support = np.bincount(gold, minlength=len(labels))
    classes = []
    for place, label in enumerate(labels):
        right, predicted = int(matrix[place, place]), int(matrix[:, place].sum())
        precision, recall = _share(right, predicted), _share(right, int(support[place]))
        f1 = _share(2 * right, predicted + int(support[place]))
        classes.append(
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": int(support[place])}
        )
    return {"classes": classes, "confusion_matrix": matrix.tolist()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def metric_notes(
    metrics: Mapping[str, float | None], probabilities: np.ndarray, gold: np.ndarray, labels: Sequence[str]
) -> list[str]:
    """Sentences for figures that seem to contradict each other: AUC judges the ranking, accuracy the decisions."""
    auc, accuracy, majority = metrics.get("auc"), metrics.get("accuracy"), metrics.get("majority_accuracy")
    if auc is None or accuracy is None or majority is None or not np.isfinite(auc):
        return []  # undefined, as where a class does not occur
    collapsed = collapsed_class(probabilities)
    one_label = f"; (nearly) every pair is predicted as {labels[collapsed]!r}" if collapsed is not None else ""
    found = []
    if auc >= _GOOD and accuracy <= majority:
        decided = "threshold of 0.5" if len(labels) == 2 else "choice of the likeliest label"
        found.append(
            f"AUC {auc:.4f} judges the ranking, which is good; accuracy {accuracy:.4f} judges the decisions, which are "
            f"no better than the majority label ({majority:.4f}): the {decided} does not fit{one_label}"
        )
        if len(labels) == 2:
            threshold, best = _best_threshold(probabilities[:, 1], gold)
            found.append(f"on these pairs a threshold of {threshold:.4f} gives accuracy {best:.4f}")
    elif auc <= _BAD:
        found.append(f"AUC {auc:.4f}: pairs are ranked the wrong way round; are the labels swapped?")
    elif collapsed is not None:
        found.append(f"accuracy says little here: AUC {auc:.4f}{one_label}")
    return found


def _best_threshold(positive: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
    """The probability from which on the second class gives the highest accuracy, and that accuracy."""
    order = np.argsort(positive, kind="stable")
    values, truth = positive[order], gold[order] == 1
    right = np.concatenate([[truth.sum()], truth.sum() + np.cumsum(np.where(truth, -1, 1))])
    is_cut = np.concatenate([[True], values[1:] != values[:-1], [True]])
    cut = int(np.where(is_cut, right, -1).argmax())
    edges = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], 2)]])
    return float(edges[cut]), float(right[cut] / len(gold))
