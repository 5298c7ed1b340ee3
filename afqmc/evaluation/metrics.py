"""What logits are worth against labels: scikit-learn's metrics under the names this project writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from afqmc.evaluation.metric_names import NAMES

_COLLAPSED = 0.995  # share of predictions in one class


def has_prediction(logits: np.ndarray) -> np.ndarray:
    """Which rows of logits (N, C) have a prediction, (N,): a row with NaN or infinity in it has none."""
    return np.asarray(np.isfinite(logits).all(axis=1))


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Softmax in float64: (N, C) to (N, C); NaN in rows without a prediction."""
    from scipy.special import softmax

    return np.asarray(softmax(_wide(logits), axis=1))


def log_probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Log-softmax in float64: (N, C) to (N, C); NaN in rows without a prediction."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(_wide(logits), axis=1))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, which are logits of them; a probability of 0 becomes the smallest float64."""
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))


def _wide(logits: np.ndarray) -> np.ndarray:
    """In float64, with NaN for the whole of a row without a prediction."""
    return np.where(has_prediction(logits)[:, None], logits.astype(np.float64), np.nan)


def log_odds_of(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class against the rest, in float64: (N, C) to (N, C).

    They rank examples as probabilities do, but a float64 probability rounds to 1 from log-odds of 36.7 on.
    """
    from scipy.special import logsumexp

    wide = logits.astype(np.float64)
    if wide.shape[1] == 2:
        margin = wide[:, 1] - wide[:, 0]
        return np.stack([-margin, margin], axis=1)
    rest = [logsumexp(np.delete(wide, number, axis=1), axis=1) for number in range(wide.shape[1])]
    return np.asarray(wide - np.stack(rest, axis=1))


def mean_as_logits(members: list[np.ndarray]) -> np.ndarray:
    """Logarithms of the members' mean probabilities, which are logits of them: M times (N, C) to (N, C).

    The logarithm of the sum is taken without leaving the logarithm, so that small probabilities are not lost.
    """
    from scipy.special import logsumexp

    each = np.stack([log_probabilities_of(logits) for logits in members])
    return np.asarray(logsumexp(each, axis=0) - np.log(len(each)))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of a labelled split.

    With two classes, precision, recall, F1, AUC and average precision are those of class 1; with more, macro means
    (AUC one against the rest). AUC is NaN where only one class occurs. If any logit of the split is NaN or infinite,
    every metric is NaN except ``majority_accuracy``, which depends on the labels only.

    Args:
        logits: (N, C).
        labels: Class indices (N,).
    """
    # scikit-learn takes longer to import than the first training step needs to begin
    from sklearn import metrics as sk

    found = dict.fromkeys(NAMES, np.nan) | {"majority_accuracy": np.bincount(labels).max() / len(labels)}
    if not has_prediction(logits).all():
        return {name: float(value) for name, value in found.items()}
    predicted = logits.argmax(axis=1)
    classes = np.arange(logits.shape[1])
    binary = len(classes) == 2
    kind: dict[str, Any] = {"average": "binary" if binary else "macro", "zero_division": 0.0}
    kind |= {} if binary else {"labels": classes}
    found |= {
        "loss": -log_probabilities_of(logits)[np.arange(len(labels)), labels].mean(),
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, **kind),
        "recall": sk.recall_score(labels, predicted, **kind),
        "f1": sk.f1_score(labels, predicted, **kind),
        "mcc": sk.matthews_corrcoef(labels, predicted) if len(np.union1d(labels, predicted)) > 1 else 0.0,
    }
    if len(np.unique(labels)) == len(classes):
        odds = log_odds_of(logits)
        each = [(labels == number, odds[:, number]) for number in ([1] if binary else classes)]
        found["auc"] = np.mean([sk.roc_auc_score(*one) for one in each])
        found["average_precision"] = np.mean([sk.average_precision_score(*one) for one in each])
    return {name: float(found[name]) for name in NAMES}


def collapsed_class(logits: np.ndarray) -> int | None:
    """The class that (nearly) every row is predicted as; None for a model that tells pairs apart.

    Rows without a prediction count for no class.
    """
    predicted = logits[has_prediction(logits)].argmax(axis=1)
    counts = np.bincount(predicted, minlength=logits.shape[1])
    top = int(counts.argmax())
    return top if counts[top] >= _COLLAPSED * len(logits) else None
