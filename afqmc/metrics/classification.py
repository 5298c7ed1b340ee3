"""What probabilities are worth against labels: scikit-learn's metrics under the names this project writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from afqmc.metrics.names import NAMES

_COLLAPSED = 0.995  # share of predictions in one class


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Softmax in float64: (N, C) to (N, C)."""
    from scipy.special import softmax

    return np.asarray(softmax(logits.astype(np.float64), axis=1))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of a labelled split.

    With two classes, precision, recall, F1, AUC and average precision are those of class 1; with more, macro means
    (AUC one against the rest). A metric that is undefined is NaN: AUC where only one class occurs, or a logit is NaN.

    Args:
        logits: (N, C).
        labels: Class indices (N,).
    """
    # scikit-learn takes longer to import than the first training step needs to begin
    from scipy.special import log_softmax
    from sklearn import metrics as sk

    probabilities = probabilities_of(logits)
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(logits.shape[1])
    binary = len(classes) == 2
    kind: dict[str, Any] = {"average": "binary" if binary else "macro", "zero_division": 0.0}
    kind |= {} if binary else {"labels": classes}
    found = {
        "loss": -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean(),
        "accuracy": sk.accuracy_score(labels, predicted),
        "majority_accuracy": np.bincount(labels).max() / len(labels),
        "precision": sk.precision_score(labels, predicted, **kind),
        "recall": sk.recall_score(labels, predicted, **kind),
        "f1": sk.f1_score(labels, predicted, **kind),
        "mcc": sk.matthews_corrcoef(labels, predicted) if len(np.union1d(labels, predicted)) > 1 else 0.0,
        "auc": np.nan,
        "average_precision": np.nan,
    }
    defined = len(np.unique(labels)) == len(classes) and bool(np.isfinite(probabilities).all())
    if defined and binary:
        found["auc"] = sk.roc_auc_score(labels, probabilities[:, 1])
        found["average_precision"] = sk.average_precision_score(labels, probabilities[:, 1])
    elif defined:
        found["auc"] = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=classes)
        found["average_precision"] = sk.average_precision_score(
            labels[:, None] == classes, probabilities, average="macro"
        )
    return {name: float(found[name]) for name in NAMES}


def metrics_of(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``classification_metrics`` of probabilities (N, C): their logarithms are logits that give them."""
    return classification_metrics(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), labels)


def collapsed_class(probabilities: np.ndarray) -> int | None:
    """The class that (nearly) everything is predicted as, None for a model that tells pairs apart."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    top = int(counts.argmax())
    return top if counts[top] >= _COLLAPSED * len(probabilities) else None
