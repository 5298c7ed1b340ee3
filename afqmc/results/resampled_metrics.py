"""Metrics of many resamples at once: a resample is how often each example was drawn, a metric a few matrix products.

scikit-learn has these metrics for one sample at a time; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from afqmc.evaluation.metrics import log_odds_of, log_probabilities_of, probabilities_of

Array = np.ndarray

OF_COUNTS = ("accuracy", "precision", "recall", "f1", "mcc")
OF_RANKS = ("auc", "average_precision")
MEASURES = (*OF_COUNTS, *OF_RANKS, "loss")


@dataclass(frozen=True)
class LabelledPredictions:
    """What one model said of N examples of C classes.

    Attributes:
        gold: True classes, (N,).
        predicted: (N,).
        logits: (N, C), float64; all of them finite.
    """

    gold: Array
    predicted: Array
    logits: Array

    @cached_property
    def probabilities(self) -> Array:
        """(N, C), float64."""
        return probabilities_of(self.logits)


def resample_counts(rows: Array, examples: int) -> Array:
    """Resamples (R, n) of row numbers as how often each example was drawn: (examples, R) float32."""
    resamples = len(rows)
    places = rows + examples * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=examples * resamples).reshape(resamples, examples)
    return np.ascontiguousarray(counts.T, dtype=np.float32)  # examples first: sorting and summing them is then quick


def resampled_metric(name: str, answers: Sequence[LabelledPredictions], weights: Array) -> Array:
    """A metric of M models on R resamples: (M, R) float64; NaN where it is undefined.

    Args:
        name: One of ``MEASURES``; with two classes that of class 1, with more the macro mean, as a run's own figures.
        answers: Of M models on the same N examples.
        weights: (N, R), how often each resample holds each example.
    """
    if name in OF_COUNTS:
        return _of_counts(name, *_counts(answers, weights))
    total = weights.sum(axis=0, dtype=np.float64)
    if name == "loss":
        found = np.stack([_surprise(model) for model in answers]) @ weights
        return np.asarray(found / total)
    return np.stack([_of_ranks(name, model, weights) for model in answers])


def _counts(answers: Sequence[LabelledPredictions], weights: Array) -> tuple[Array, Array, Array]:
    """Examples of each class (1, R, C), predicted as such, and rightly so, (M, R, C)."""
    classes = np.arange(answers[0].logits.shape[1])
    gold = answers[0].gold[:, None] == classes  # (N, C)
    said = np.stack([model.predicted for model in answers])[..., None] == classes  # (M, N, C)

    def count(marks: Array) -> Array:
        models, examples, kinds = marks.shape
        flat = marks.transpose(0, 2, 1).reshape(-1, examples).astype(np.float32)
        return np.asarray((flat @ weights).reshape(models, kinds, -1).transpose(0, 2, 1), dtype=np.float64)

    return count(gold[None]), count(said), count(said & gold)


def _of_counts(name: str, true: Array, said: Array, hit: Array) -> Array:
    total = true.sum(axis=-1)
    if name == "accuracy":
        return np.asarray(hit.sum(axis=-1) / total)
    if name == "mcc":
        right = hit.sum(axis=-1) * total - (said * true).sum(axis=-1)
        spread = (total**2 - (said**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        return _ratio(right, np.sqrt(spread))
    parts = {"precision": (hit, said), "recall": (hit, true), "f1": (2 * hit, said + true)}
    found = _ratio(*parts[name])
    return np.asarray(found[..., 1] if found.shape[-1] == 2 else found.mean(axis=-1))


def _ratio(part: Array, whole: Array) -> Array:
    """0 where there is nothing to divide by, as in a run's own figures."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def _surprise(model: LabelledPredictions) -> Array:
    return np.asarray(-log_probabilities_of(model.logits)[np.arange(len(model.gold)), model.gold])


def _of_ranks(name: str, model: LabelledPredictions, weights: Array) -> Array:
    """One class against the rest, (R,); the macro mean where there are more than two."""
    odds = log_odds_of(model.logits)
    kinds = [1] if odds.shape[1] == 2 else range(odds.shape[1])
    one = {"auc": _auc, "average_precision": _average_precision}[name]
    found = [one(_Ranked(model.gold == kind, odds[:, kind], weights)) for kind in kinds]
    return np.asarray(np.mean(found, axis=0))


class _Ranked:
    """Examples of a class and the others, each by falling score, with their weights in R resamples."""

    def __init__(self, positive: Array, scores: Array, weights: Array) -> None:
        falling = np.argsort(-scores, kind="stable")
        order, others = falling[positive[falling]], falling[~positive[falling]]
        self.positive, self.negative = -scores[order], -scores[others]  # rising, as searchsorted wants them
        self.weights = weights[order]  # (P, R)
        self.true, self.false = _summed(self.weights), _summed(weights[others])
        self.area = self.true[-1] * self.false[-1]

    def over_area(self, sums: Array, whole: Array) -> Array:
        """NaN where one of the classes was not drawn."""
        return np.asarray(np.divide(sums, whole, out=np.full(len(whole), np.nan), where=self.area > 0))


def _summed(weights: Array) -> Array:
    """Of none, the first, the first two rows, and so on: (N, R) to (N + 1, R)."""
    found = np.zeros((len(weights) + 1, weights.shape[1]), dtype=weights.dtype)
    np.cumsum(weights, axis=0, out=found[1:])
    return found


def _auc(ranked: _Ranked) -> Array:
    """The share of pairs of both classes that are in the right order; equal scores are half right."""
    above = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="left")]
    level = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="right")]
    wrong = np.einsum("pr,pr->r", ranked.weights, above + level) / 2
    return 1 - ranked.over_area(wrong, ranked.area)


def _average_precision(ranked: _Ranked) -> Array:
    """The mean of the precision at each example of the class, those of the same score included."""
    true = ranked.true[np.searchsorted(ranked.positive, ranked.positive, side="right")]
    false = ranked.false[np.searchsorted(ranked.negative, ranked.positive, side="right")]
    return ranked.over_area(np.einsum("pr,pr->r", ranked.weights, _ratio(true, true + false)), ranked.true[-1])
