"""Curves of one class against the rest, with 95% bands for other pairs: ROC, precision-recall and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from afqmc.evaluation.metrics import log_odds_of
from afqmc.results.resampled_metrics import Array, LabelledPredictions, resample_counts

_MAX_POINTS = 200  # per curve, about its width in pixels
_BINS = 10  # of the calibration curve
_DIGITS = 4
_BATCHES, _BATCH = 12, 25  # of resamples, 300 in all; a batch at once limits the memory
_GRID = np.linspace(0, 1, 51)  # x of the bands


def resampled_pairs(pairs: int, groups: Array | None) -> Array:
    """Return how often each of R resamples draws each pair, (N, R), uint8; whole groups are drawn if there are any."""
    units, rng = pairs if groups is None else int(groups.max()) + 1, np.random.default_rng(0)
    batches = [
        resample_counts(rng.integers(0, units, (_BATCH, units)), units).astype(np.uint8) for _ in range(_BATCHES)
    ]
    counts = np.concatenate(batches, axis=1)
    return counts if groups is None else counts[groups]


def class_curves(answers: LabelledPredictions, label: int, counts: Array, is_grouped: bool) -> dict[str, Any] | None:
    """Return the curves of one class; None if all or none of the pairs belong to it.

    Args:
        answers: The predictions of a model on N pairs.
        label: Index of the class.
        counts: From ``resampled_pairs``, (N, R).
        is_grouped: Whether groups of pairs were drawn.
    """
    is_positive = answers.gold == label
    probability, log_odds = answers.probabilities[:, label], log_odds_of(answers.logits)[:, label]
    if is_positive.all() or not is_positive.any():
        return None
    false_positive_rate, true_positive_rate, _ = roc_curve(is_positive, log_odds)
    precision, recall, _ = precision_recall_curve(is_positive, log_odds, drop_intermediate=True)
    observed, predicted = calibration_curve(is_positive, probability, n_bins=_BINS, strategy="quantile")
    roc_band, pr_band = _bands(is_positive, log_odds, counts)
    return {
        "roc": _points(false_positive_rate, true_positive_rate),
        "roc_band": roc_band,
        "pr": _points(recall, precision),
        "pr_band": pr_band,
        "calibration": _points(predicted, observed),
        "calibration_interval": _calibration_intervals(is_positive, probability, observed, counts, is_grouped),
        "brier": round(float(brier_score_loss(is_positive, probability)), _DIGITS),
        "base_rate": round(float(is_positive.mean()), _DIGITS),
    }


def _points(x: Array, y: Array) -> list[list[float]]:
    rows = np.unique(np.linspace(0, len(x) - 1, _MAX_POINTS).round().astype(int))
    return [x[rows].round(_DIGITS).tolist(), y[rows].round(_DIGITS).tolist()]


def _bands(is_positive: Array, scores: Array, counts: Array) -> list[list[list[float]]]:
    """Return the pointwise bands of ROC and precision-recall, each as [low, high] at x from 0 to 1.

    A curve of each resample is read at these x: the true positive rate at a false positive rate, interpolated
    (vertical averaging; Fawcett 2006, section 8.2), and the precision at the first threshold that has a recall.
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.append(np.diff(scores[order]) != 0, True)  # equal scores share a threshold
    batches = (_curves(is_positive[order], one[order], is_last) for one in np.split(counts, _BATCHES, axis=1))
    curves = [pair for batch in batches for pair in batch]
    return [_band([rates for rates, _ in curves]), _band([precisions for _, precisions in curves])]


def _curves(positive: Array, drawn: Array, is_last: Array) -> Iterator[tuple[Array, Array]]:
    """Yield the ROC and precision-recall curve of each resample of pairs by descending score, (N, R), at the grid."""
    true = np.cumsum(drawn * positive[:, None], axis=0, dtype=np.float64)[is_last]  # (thresholds, R)
    false = np.cumsum(drawn * ~positive[:, None], axis=0, dtype=np.float64)[is_last]
    is_defined = (true[-1] > 0) & (false[-1] > 0)
    true, false = true[:, is_defined], false[:, is_defined]
    recall, fall_out = true / true[-1], false / false[-1]
    precision = true / np.maximum(true + false, 1)
    for one in range(true.shape[1]):
        rates = np.interp(_GRID, np.append(0, fall_out[:, one]), np.append(0, recall[:, one]))
        first = np.searchsorted(recall[:, one], np.maximum(_GRID, 1e-9) - 1e-12)
        yield rates, precision[np.minimum(first, len(precision) - 1), one]


def _band(curves: list[Array]) -> list[list[float]]:
    if not curves:
        return []
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return [low.round(3).tolist(), high.round(3).tolist()]


def _calibration_intervals(
    is_positive: Array, probability: Array, observed: Array, counts: Array, is_grouped: bool
) -> list[list[float]]:
    """Return the 95% interval of the share observed in each bin of the calibration curve, as [low, high].

    Independent pairs have Wilson's interval, which has a width even if all pairs of a bin are alike. Groups are drawn.
    """
    borders = np.percentile(probability, np.linspace(0, 100, _BINS + 1))
    bins = np.searchsorted(borders[1:-1], probability)  # as calibration_curve
    if not is_grouped:
        pairs = np.bincount(bins)
        pairs = pairs[pairs > 0]  # with equal probabilities, bins are of unequal size, or empty
        return _points(*proportion_confint(observed * pairs, pairs, method="wilson"))
    marks = bins[None, :] == np.unique(bins)[:, None]  # (bins, N)
    total = marks.astype(np.float32) @ counts
    shares = (marks & is_positive).astype(np.float32) @ counts / np.maximum(total, 1)
    return _points(*np.percentile(shares, [2.5, 97.5], axis=1))
