"""Metrics per class, the confusion matrix, and notes that explain contradictory metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import collapsed_class

_GOOD_AUC, _INVERTED_AUC = 0.75, 0.35  # pairs are ranked well from, in reverse order up to this AUC


def per_class(probabilities: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Compute precision, recall, F1 and support per class, and the confusion matrix (row: true, column: predicted).

    Args:
        probabilities: (N, C). Rows with NaN have no prediction and are not in the matrix.
        gold: Class indices (N,).
        labels: The C label names.
    """
    has_prediction = np.isfinite(probabilities).all(axis=1)
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(matrix, (gold[has_prediction], probabilities[has_prediction].argmax(axis=1)), 1)
    support = np.bincount(gold, minlength=len(labels))
    classes = []
    for index, label in enumerate(labels):
        correct, predicted, actual = int(matrix[index, index]), int(matrix[:, index].sum()), int(support[index])
        precision, recall = _ratio(correct, predicted), _ratio(correct, actual)
        f1 = _ratio(2 * correct, predicted + actual)
        classes.append({"label": label, "precision": precision, "recall": recall, "f1": f1, "support": actual})
    return {"classes": classes, "confusion_matrix": matrix.tolist()}


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0


def metric_notes(
    metrics: Mapping[str, float | None], probabilities: np.ndarray, gold: np.ndarray, labels: Sequence[str]
) -> list[str]:
    """Explain metrics that seem to contradict each other: AUC measures the ranking, accuracy the decisions."""
    auc, accuracy, majority = metrics.get("roc_auc"), metrics.get("accuracy"), metrics.get("majority_accuracy")
    if auc is None or accuracy is None or majority is None or not np.isfinite(auc):
        return []  # AUC is undefined if a class does not occur
    collapsed = collapsed_class(probabilities)
    one_label = f"; (nearly) every pair is predicted as {labels[collapsed]!r}" if collapsed is not None else ""
    notes = []
    if auc >= _GOOD_AUC and accuracy <= majority:
        rule = "threshold of 0.5" if len(labels) == 2 else "choice of the likeliest label"
        notes.append(
            f"AUC {auc:.4f} measures the ranking, which is good; accuracy {accuracy:.4f} measures the decisions, which "
            f"are no better than the majority label ({majority:.4f}): the {rule} does not fit{one_label}"
        )
        if len(labels) == 2:
            threshold, best = _best_threshold(probabilities[:, 1], gold)
            notes.append(f"on these pairs a threshold of {threshold:.4f} gives accuracy {best:.4f}")
    elif auc <= _INVERTED_AUC:
        notes.append(f"AUC {auc:.4f}: pairs are ranked in reverse order; are the labels swapped?")
    elif collapsed is not None:
        notes.append(f"accuracy says little here: AUC {auc:.4f}{one_label}")
    return notes


def _best_threshold(positive: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
    """Return the threshold on the probability of class 1 with the highest accuracy, and that accuracy."""
    order = np.argsort(positive, kind="stable")
    values, truth = positive[order], gold[order] == 1
    # correct[i]: number of correct decisions if the i smallest probabilities are below the threshold
    correct = np.concatenate([[truth.sum()], truth.sum() + np.cumsum(np.where(truth, -1, 1))])
    is_cut = np.concatenate([[True], values[1:] != values[:-1], [True]])
    cut = int(np.where(is_cut, correct, -1).argmax())
    edges = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], 2)]])
    return float(edges[cut]), float(correct[cut] / len(gold))
