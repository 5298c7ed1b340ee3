"""Metrics of many resamples at once.

A resample is given by how often each example was drawn, so that a metric takes a few matrix products. The results equal
those of scikit-learn, which computes one sample at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from afqmc.evaluation.calibration import ECE_BINS, brier_terms, ece_terms, nll_terms
from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.evaluation.metrics import log_odds_of, log_probabilities_of, probabilities_of

Array = np.ndarray

_MIN_GROUPS = 30  # effective number: (sum of sizes)**2 / sum of (sizes**2)
_COUNT_METRICS = ("accuracy", "precision", "recall", "f1", "mcc")
_RANK_METRICS = ("roc_auc", "average_precision")
MEASURES = (*_COUNT_METRICS, *_RANK_METRICS, "loss", "brier", "ece", *DECIDED_NAMES)


@dataclass(frozen=True)
class LabelledPredictions:
    """The predictions of one model on N labelled examples of C classes.

    Attributes:
        gold: True classes, (N,).
        predicted: Predicted classes, (N,).
        logits: (N, C), float64; all finite.
        calibrated: Calibrated probabilities (N, C), or None if the run has no decision.
        decided: Classes predicted with its threshold (N,), or None.
    """

    gold: Array
    predicted: Array
    logits: Array
    calibrated: Array | None = None
    decided: Array | None = None

    @cached_property
    def probabilities(self) -> Array:
        """(N, C), float64."""
        return probabilities_of(self.logits)

    def as_decided(self) -> LabelledPredictions:
        """Return the same with the classes that the decision predicts."""
        assert self.decided is not None
        return replace(self, predicted=self.decided)

    def probabilities_for(self, suffix: str) -> Array:
        """Return the calibrated probabilities (N, C) for the suffix ``calibrated``, else the others."""
        if suffix != "calibrated":
            return self.probabilities
        assert self.calibrated is not None
        return self.calibrated


def drawable_groups(groups: Array | None) -> Array | None:
    """Return the groups if they are enough to be drawn in resamples, else None: then pairs are drawn one by one.

    If nearly all pairs are connected by shared sentences, they form one large group, and drawing it says nothing.

    Args:
        groups: The group of each pair, (N,), from 0; or None.
    """
    if groups is None:
        return None
    sizes = np.bincount(groups)
    effective = sizes.sum() ** 2 / (sizes.astype(float) ** 2).sum()
    return groups if effective >= _MIN_GROUPS else None


def resample_counts(rows: Array, examples: int) -> Array:
    """Convert R resamples of row numbers, (R, n), to how often each drew each example: (examples, R), float32."""
    resamples = len(rows)
    flat = rows + examples * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=examples * resamples).reshape(resamples, examples)
    return np.ascontiguousarray(counts.T, dtype=np.float32)  # contiguous along resamples, for fast sorting and sums


def resampled_metric(name: str, answers: Sequence[LabelledPredictions], weights: Array) -> Array:
    """Return a metric of M models on R resamples: (M, R), float64, NaN where it is undefined.

    Args:
        name: One of ``MEASURES``. It refers to class 1 of two classes, and to the macro mean of more, as in a run.
        answers: The predictions of M models on the same N examples.
        weights: (N, R), how often each resample drew each example.
    """
    base, _, suffix = name.rpartition("_")
    if suffix == "decided":
        return resampled_metric(base, [model.as_decided() for model in answers], weights)
    if name in _COUNT_METRICS:
        return _count_metric(name, *_counts(answers, weights))
    total = weights.sum(axis=0, dtype=np.float64)
    if suffix == "calibrated" or name in ("brier", "ece"):
        sums = {"nll": _nll_sum, "brier": _brier_sum, "ece": _ece_sum}[base or name]
        scores = [sums(model.probabilities_for(suffix), model.gold, weights) for model in answers]
        return np.asarray(np.stack(scores) / total)
    if name == "loss":
        losses = np.stack([_nll(model) for model in answers]) @ weights
        return np.asarray(losses / total)
    return np.stack([_rank_metric(name, model, weights) for model in answers])


def _counts(answers: Sequence[LabelledPredictions], weights: Array) -> tuple[Array, Array, Array]:
    """Return the examples per class (1, R, C), the predictions per class and the correct ones, both (M, R, C)."""
    classes = np.arange(answers[0].logits.shape[1])
    gold = answers[0].gold[:, None] == classes  # (N, C)
    predicted = np.stack([model.predicted for model in answers])[..., None] == classes  # (M, N, C)

    def count(marks: Array) -> Array:
        models, examples, classes = marks.shape
        flat = marks.transpose(0, 2, 1).reshape(-1, examples).astype(np.float32)
        return np.asarray((flat @ weights).reshape(models, classes, -1).transpose(0, 2, 1), dtype=np.float64)

    return count(gold[None]), count(predicted), count(predicted & gold)


def _count_metric(name: str, true: Array, predicted: Array, correct: Array) -> Array:
    total = true.sum(axis=-1)
    if name == "accuracy":
        return np.asarray(correct.sum(axis=-1) / total)
    if name == "mcc":
        covariance = correct.sum(axis=-1) * total - (predicted * true).sum(axis=-1)
        variances = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        return _ratio(covariance, np.sqrt(variances))
    ratios = {"precision": (correct, predicted), "recall": (correct, true), "f1": (2 * correct, predicted + true)}
    per_class = _ratio(*ratios[name])
    return np.asarray(per_class[..., 1] if per_class.shape[-1] == 2 else per_class.mean(axis=-1))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; 0 where the denominator is 0, as in a run's own figures."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))


def _nll(model: LabelledPredictions) -> Array:
    """Negative log-likelihood per example, (N,)."""
    return np.asarray(-log_probabilities_of(model.logits)[np.arange(len(model.gold)), model.gold])


def _nll_sum(probabilities: Array, gold: Array, weights: Array) -> Array:
    return np.asarray(nll_terms(probabilities, gold) @ weights)


def _brier_sum(probabilities: Array, gold: Array, weights: Array) -> Array:
    return np.asarray(brier_terms(probabilities, gold) @ weights)


def _ece_sum(probabilities: Array, gold: Array, weights: Array) -> Array:
    bins, gaps = ece_terms(probabilities, gold)
    sums = [gaps[bins == index] @ weights[bins == index] for index in range(ECE_BINS)]
    return np.asarray(np.abs(sums).sum(axis=0))


def _rank_metric(name: str, model: LabelledPredictions, weights: Array) -> Array:
    """One-vs-rest metric, (R,): of class 1 for two classes, the macro mean for more."""
    odds = log_odds_of(model.logits)
    classes = [1] if odds.shape[1] == 2 else range(odds.shape[1])
    metric = {"roc_auc": _auc, "average_precision": _average_precision}[name]
    per_class = [metric(_Ranked(model.gold == label, odds[:, label], weights)) for label in classes]
    return np.asarray(np.mean(per_class, axis=0))


class _Ranked:
    """The examples of a class and the others, each by descending score, with their weights in R resamples."""

    def __init__(self, positive: Array, scores: Array, weights: Array) -> None:
        descending = np.argsort(-scores, kind="stable")
        order, others = descending[positive[descending]], descending[~positive[descending]]
        self.positive, self.negative = -scores[order], -scores[others]  # ascending, for searchsorted
        self.weights = weights[order]  # (P, R)
        self.true, self.false = _cumulative(self.weights), _cumulative(weights[others])
        self.area = self.true[-1] * self.false[-1]

    def divide(self, sums: Array, total: Array) -> Array:
        """Divide; NaN for resamples that drew none of the class, or only the class."""
        return np.asarray(np.divide(sums, total, out=np.full(len(total), np.nan), where=self.area > 0))


def _cumulative(weights: Array) -> Array:
    """Cumulative sums over rows, beginning with 0: (N, R) to (N + 1, R)."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]), dtype=weights.dtype)
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def _auc(ranked: _Ranked) -> Array:
    """Share of (positive, negative) pairs that are ordered correctly; equal scores count half."""
    above = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="left")]
    tied = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="right")]
    wrong = np.einsum("pr,pr->r", ranked.weights, above + tied) / 2
    return 1 - ranked.divide(wrong, ranked.area)


def _average_precision(ranked: _Ranked) -> Array:
    """Mean precision at the score of each positive example, ties included."""
    true = ranked.true[np.searchsorted(ranked.positive, ranked.positive, side="right")]
    false = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="right")]
    return ranked.divide(np.einsum("pr,pr->r", ranked.weights, _ratio(true, true + false)), ranked.true[-1])
