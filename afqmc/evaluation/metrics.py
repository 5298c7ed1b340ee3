"""Metrics and probabilities from logits. Metrics are those of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from afqmc.evaluation.calibration import brier_score, expected_calibration_error
from afqmc.evaluation.metric_names import NAMES

_COLLAPSED = 0.995  # a model collapses if at least this fraction of predictions is one class


def has_prediction(logits: np.ndarray) -> np.ndarray:
    """Return per row of logits (N, C) whether it has a prediction (N,), which means that all logits are finite."""
    return np.asarray(np.isfinite(logits).all(axis=1))


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Return the softmax in float64: (N, C) to (N, C). Rows without a prediction are NaN."""
    from scipy.special import softmax

    return np.asarray(softmax(_to_float64(logits), axis=1))


def log_probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Return the log-softmax in float64: (N, C) to (N, C). Rows without a prediction are NaN."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(_to_float64(logits), axis=1))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities, which are valid logits. 0 counts as the smallest normal float64."""
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))


def _to_float64(logits: np.ndarray) -> np.ndarray:
    """Convert logits to float64, and fill rows without a prediction with NaN."""
    return np.where(has_prediction(logits)[:, None], logits.astype(np.float64), np.nan)


def log_odds_of(logits: np.ndarray) -> np.ndarray:
    """Return the log-odds of each class against the rest, in float64: (N, C) to (N, C).

    They rank examples as probabilities do, but without ties: a float64 probability rounds to 1 at log-odds of 36.7.
    """
    from scipy.special import logsumexp

    logits = logits.astype(np.float64)
    if logits.shape[1] == 2:
        margin = logits[:, 1] - logits[:, 0]
        return np.stack([-margin, margin], axis=1)
    rest = [logsumexp(np.delete(logits, index, axis=1), axis=1) for index in range(logits.shape[1])]
    return np.asarray(logits - np.stack(rest, axis=1))


def mean_as_logits(members: list[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean probabilities of an ensemble, which are valid logits: M x (N, C) to (N, C).

    The mean is computed by log-sum-exp, since small probabilities would underflow.
    """
    from scipy.special import logsumexp

    log_probabilities = np.stack([log_probabilities_of(logits) for logits in members])
    return np.asarray(logsumexp(log_probabilities, axis=0) - np.log(len(members)))


def asymmetry(logits: np.ndarray, swapped: np.ndarray) -> float:
    """Return how much probabilities depend on the order of the sentences: 0 if not at all, at most 1.

    It is the mean over pairs of the total variation distance, half of the sum over classes of |p(a, b) - p(b, a)|. With
    two classes this is the mean absolute difference of the probability of class 1. NaN if any logit is not finite.

    Args:
        logits: (N, C), of the pairs (a, b).
        swapped: (N, C), of the pairs (b, a).
    """
    return float(np.abs(probabilities_of(logits) - probabilities_of(swapped)).sum(axis=1).mean() / 2)


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute all metrics in ``NAMES``.

    With two classes, precision, recall, F1, AUC and average precision are those of class 1. With more, they are macro
    means, AUC and average precision one against the rest. These two are NaN unless every class occurs in ``labels``.
    If any logit is NaN or infinite, all metrics are NaN except ``majority_accuracy``, which depends on the labels only.

    Args:
        logits: (N, C).
        labels: Class indices (N,).
    """
    metrics = dict.fromkeys(NAMES, np.nan) | {"majority_accuracy": np.bincount(labels).max() / len(labels)}
    if not has_prediction(logits).all():
        return {name: float(value) for name, value in metrics.items()}
    from sklearn import metrics as sk  # imported late, because it would delay the start of a run

    classes, probabilities = np.arange(logits.shape[1]), probabilities_of(logits)
    metrics |= {
        "loss": -log_probabilities_of(logits)[np.arange(len(labels)), labels].mean(),
        **decision_metrics(logits.argmax(axis=1), labels, len(classes)),
        "brier": brier_score(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
    }
    if len(np.unique(labels)) == len(classes):
        odds = log_odds_of(logits)
        rankings = [(labels == index, odds[:, index]) for index in ([1] if len(classes) == 2 else classes)]
        metrics["roc_auc"] = np.mean([sk.roc_auc_score(*ranking) for ranking in rankings])
        metrics["average_precision"] = np.mean([sk.average_precision_score(*ranking) for ranking in rankings])
    return {name: float(metrics[name]) for name in NAMES}


def decision_metrics(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, float]:
    """Return accuracy, precision, recall, F1 and MCC of predicted classes (N,), as ``classification_metrics`` does."""
    from sklearn import metrics as sk

    binary = num_classes == 2
    options: dict[str, Any] = {"average": "binary" if binary else "macro", "zero_division": 0.0}
    options |= {} if binary else {"labels": np.arange(num_classes)}
    values = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, **options),
        "recall": sk.recall_score(labels, predicted, **options),
        "f1": sk.f1_score(labels, predicted, **options),
        "mcc": sk.matthews_corrcoef(labels, predicted) if len(np.union1d(labels, predicted)) > 1 else 0.0,
    }
    return {name: float(value) for name, value in values.items()}


def collapsed_class(logits: np.ndarray) -> int | None:
    """Return the index of the class predicted for at least 99.5% of all rows, or None.

    Rows without a prediction count as rows, but for no class.
    """
    predicted = logits[has_prediction(logits)].argmax(axis=1)
    counts = np.bincount(predicted, minlength=logits.shape[1])
    top = int(counts.argmax())
    return top if counts[top] >= _COLLAPSED * len(logits) else None
