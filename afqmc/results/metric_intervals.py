"""Intervals of the metrics of one model: how much other pairs would change them. Other seeds are not included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from afqmc.data.folds import connected_groups
from afqmc.data.pairs import Pairs
from afqmc.evaluation.decision import Decided
from afqmc.evaluation.metrics import has_prediction
from afqmc.results.resampled_metrics import (
    MEASURES,
    Array,
    LabelledPredictions,
    drawable_groups,
    resample_counts,
    resampled_metric,
)

_RESAMPLES, _MAX_RESAMPLES = 500, 5000  # for 95%, and at most for higher levels
MAX_MATRIX_CLASSES = 20  # of a confusion matrix with intervals
_BATCH = 50  # resamples at once, which bounds the memory


def metric_intervals(
    answers: LabelledPredictions,
    names: Iterable[str] | None = None,
    groups: Array | None = None,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of metrics, by the percentile bootstrap over the pairs.

    The same pairs give the same intervals: the resamples are drawn with a fixed seed. Of independent pairs, the
    accuracy, and recall and precision of two classes, have Wilson's interval. The calibration error has none: a
    resample has a larger one than the pairs it is drawn from.

    Args:
        answers: The predictions of the model on N labelled pairs.
        names: Of the metrics; by default all, those with the run's decision if it has one.
        groups: The group of each pair, (N,), from 0: pairs that share a sentence are drawn together.
        level: The confidence of each interval.

    Returns:
        Lowest and highest value by name. Metrics that are undefined are left out.
    """
    if names is None:
        has_decision = answers.decided is not None
        known = [name for name in MEASURES if has_decision or not name.endswith(("_decided", "_calibrated"))]
        names = [name for name in known if not name.startswith("ece")]
    draws = _draws(answers, list(names), groups, level)
    intervals = {name: ends for name, values in draws.items() if (ends := _interval(values, level)) is not None}
    if groups is None:
        shares = {name: share for name, share in _shares(answers).items() if name in intervals and len(share)}
        intervals |= {name: _wilson_interval(share, level) for name, share in shares.items()}
    return intervals


def _shares(answers: LabelledPredictions) -> dict[str, Array]:
    """Return the metrics that are shares of pairs, each as whether these pairs are correct."""
    shares = {}
    for suffix, predicted in (("", answers.predicted), ("_decided", answers.decided)):
        if predicted is not None:
            correct = predicted == answers.gold
            shares[f"accuracy{suffix}"] = correct
            if answers.logits.shape[1] == 2:
                shares[f"recall{suffix}"] = correct[answers.gold == 1]
                shares[f"precision{suffix}"] = correct[predicted == 1]
    return shares


def split_intervals(
    logits: Array, pairs: Pairs, decided: Decided | None, names: Iterable[str] | None = None
) -> dict[str, tuple[float, float]]:
    """Return the 95% intervals of the metrics of a labelled split; none if any pair has no prediction.

    Args:
        logits: (N, C).
        pairs: The split.
        decided: Outcome of the decision, if there is one.
        names: As for ``metric_intervals``.
    """
    answers = answers_of(logits, pairs, decided)
    return {} if answers is None else metric_intervals(answers, names, groups_of(pairs))


def answers_of(logits: Array, pairs: Pairs, decided: Decided | None) -> LabelledPredictions | None:
    """Return the predictions on a split in the form that metrics take; None if any pair has no label or prediction."""
    if not pairs.labels or not has_prediction(logits).all():
        return None
    outcome = (None, None) if decided is None else (decided.probabilities, decided.predicted)
    return LabelledPredictions(np.asarray(pairs.labels), logits.argmax(axis=1), logits.astype(np.float64), *outcome)


def groups_of(pairs: Pairs) -> Array | None:
    """Return the group of each pair, (N,): pairs that share a sentence; None if they are too few to be drawn."""
    groups = connected_groups(pairs.sentence1, pairs.sentence2)
    return drawable_groups(np.unique(groups, return_inverse=True)[1])


def _weights(pairs: int, groups: Array | None, level: float) -> Iterator[Array]:
    """Yield batches of how often each resample draws each pair, (N, R): the higher the level, the more resamples."""
    units = pairs if groups is None else int(groups.max()) + 1
    rng = np.random.default_rng(0)
    resamples = min(round(_RESAMPLES * 0.05 / (1 - level)), _MAX_RESAMPLES)
    for _ in range(resamples // _BATCH):
        counts = resample_counts(rng.integers(0, units, (_BATCH, units)), units)
        yield counts if groups is None else np.ascontiguousarray(counts[groups])


def _draws(answers: LabelledPredictions, names: Sequence[str], groups: Array | None, level: float) -> dict[str, Array]:
    """Return the metrics on resamples of the pairs, (R,) each."""
    draws: dict[str, list[Array]] = {name: [] for name in names}
    for weights in _weights(len(answers.gold), groups, level):
        for name in names:
            draws[name].append(resampled_metric(name, [answers], weights)[0])
    return {name: np.concatenate(parts) for name, parts in draws.items()}


def _wilson_interval(is_correct: Array, level: float) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927), which has a width even if all or no pairs are correct."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(int(is_correct.sum()), len(is_correct), alpha=1 - level, method="wilson")
    return float(low), float(high)


def _interval(values: Array, level: float) -> tuple[float, float] | None:
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, _ends(level))
    return float(low), float(high)


def _ends(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def add_intervals(
    details: dict[str, Any], answers: LabelledPredictions, groups: Array | None, level: float = 0.95
) -> dict[str, Any]:
    """Add the intervals of all metrics, of each class and of the confusion matrix to the details, as JSON types.

    Args:
        details: With ``classes`` and ``confusion_matrix`` of ``per_class``.
        answers: The predictions of a model on N labelled pairs.
        groups: As for ``metric_intervals``.
        level: As for ``metric_intervals``.
    """
    classes = len(details["classes"])
    by_class = class_intervals(answers, classes, groups, level)
    details["classes"] = [
        row | {"intervals": _as_lists(one)} for row, one in zip(details["classes"], by_class, strict=True)
    ]
    if 2 < classes <= MAX_MATRIX_CLASSES:  # with two classes, these are the intervals of the recall
        details["confusion_intervals"] = confusion_intervals(answers, classes, groups, level).round(6).tolist()
    intervals = metric_intervals(answers, groups=groups, level=level)
    return details | {"interval_level": level, "intervals": _as_lists(intervals)}


def _as_lists(intervals: dict[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: list(ends) for name, ends in intervals.items()}


def class_intervals(
    answers: LabelledPredictions, classes: int, groups: Array | None = None, level: float = 0.95
) -> list[dict[str, tuple[float, float]]]:
    """Return the intervals of precision, recall and F1 of each class against the rest; none without a width."""
    names = ("precision", "recall", "f1")
    rows = [metric_intervals(_one_class(answers, label), names, groups, level) for label in range(classes)]
    return [{name: (low, high) for name, (low, high) in row.items() if low < high} for row in rows]


def confusion_intervals(
    answers: LabelledPredictions, classes: int, groups: Array | None = None, level: float = 0.95
) -> Array:
    """Return the interval of the share of each true class that is predicted as each class, (C, C, 2).

    They are Wilson's; if pairs are drawn in groups, percentiles over the draws. Without pairs of a class, it is 0 to 1.
    """
    cells = answers.gold * classes + answers.predicted
    if groups is None:
        counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
        from statsmodels.stats.proportion import proportion_confint

        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ends = proportion_confint(counts, totals, alpha=1 - level, method="wilson")
        return np.where(counts.sum(axis=1)[:, None, None] > 0, np.stack(ends, axis=-1), (0.0, 1.0))
    draws = [
        np.bincount(cells, one, classes**2) for weights in _weights(len(cells), groups, level) for one in weights.T
    ]
    matrices = np.reshape(draws, (-1, classes, classes))
    sizes = matrices.sum(axis=2, keepdims=True)
    first, last = _ends(level)
    low = np.quantile(np.divide(matrices, sizes, out=np.zeros_like(matrices), where=sizes > 0), first, axis=0)
    high = np.quantile(np.divide(matrices, sizes, out=np.ones_like(matrices), where=sizes > 0), last, axis=0)
    return np.stack([low, high], axis=-1)


def _one_class(answers: LabelledPredictions, label: int) -> LabelledPredictions:
    """Return the predictions of a class as those of two classes; only metrics of counts can be computed from them."""
    gold, predicted = (answers.gold == label).astype(int), (answers.predicted == label).astype(int)
    return LabelledPredictions(gold, predicted, np.eye(2)[predicted])
