"""Tests of the curves of a class and of their bands."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm
from simulated import answers_of
from statsmodels.stats.proportion import proportion_confint

from afqmc.comparison.html.class_curves import class_curves, resampled_pairs

GRID = np.linspace(0, 1, 51)[5:46]


def curves(rng, pairs, group_size=1, is_grouped=False):
    """Return the curves of a model whose scores are normal, with a mean of 0.75 for class 1 and -0.75 for class 0."""
    gold = np.repeat(rng.random(pairs // group_size) < 0.4, group_size).astype(int)
    noise = np.repeat(rng.normal(size=pairs // group_size), group_size)
    scores = 1.5 * (gold - 0.5) + noise
    groups = np.arange(pairs) // group_size if is_grouped else None
    answers = answers_of(gold, np.stack([-scores, scores], axis=1) / 2)
    return class_curves(answers, 1, resampled_pairs(pairs, groups), is_grouped)


def truth():
    """Return the true ROC and precision-recall curve at the inner points of the grid."""
    rate = norm.sf(norm.isf(GRID) - 1.5)
    threshold = norm.isf(GRID, 0.75)
    return {"roc_band": rate, "pr_band": 0.4 * GRID / (0.4 * GRID + 0.6 * norm.sf(threshold, -0.75))}


def coverage(times, **design):
    """Return the share of points at which the bands contain the true curves, by band."""
    inside = dict.fromkeys(truth(), 0.0)
    for trial in range(times):
        found = curves(np.random.default_rng(trial), **design)
        for name, true in truth().items():
            low, high = np.array(found[name])[:, 5:46]
            inside[name] += np.mean((low - 1e-3 <= true) & (true <= high + 1e-3)) / times
    return inside


def test_bands_cover_the_true_curves():
    """At 95% of the points of many curves, the bands contain the true value."""
    assert coverage(60, pairs=600) == pytest.approx({"roc_band": 0.95, "pr_band": 0.95}, abs=0.04)


def test_bands_count_groups_once():
    """Pairs that repeat each other are drawn together; drawn one by one, they give bands that are too narrow."""
    together = coverage(40, pairs=1200, group_size=4, is_grouped=True)
    assert together == pytest.approx({"roc_band": 0.95, "pr_band": 0.95}, abs=0.05)
    assert max(coverage(20, pairs=1200, group_size=4).values()) < 0.8


def test_groups_widen_calibration_intervals():
    """The intervals of the observed shares are wider if pairs repeat each other."""

    def width(is_grouped):
        low, high = curves(np.random.default_rng(0), 1200, 4, is_grouped)["calibration_interval"]
        return np.mean(np.subtract(high, low))

    assert 1.5 < width(True) / width(False) < 2.5


def test_calibration_intervals_of_tied_scores():
    """Equal scores make bins of unequal size; each has Wilson's interval of its own number of pairs."""
    rng = np.random.default_rng(0)
    gold = (rng.random(400) < 0.4).astype(int)
    scores = np.where(np.arange(400) < 300, -1.0, np.linspace(0, 2, 400))
    found = class_curves(
        answers_of(gold, np.stack([-scores, scores], axis=1) / 2), 1, resampled_pairs(400, None), False
    )
    expected = proportion_confint(gold[:300].sum(), 300, method="wilson")
    assert [ends[0] for ends in found["calibration_interval"]] == pytest.approx(expected, abs=1e-4)


def test_class_without_pairs_has_no_curves():
    answers = answers_of(np.zeros(10, dtype=int), np.random.default_rng(0).normal(size=(10, 2)))
    assert class_curves(answers, 1, resampled_pairs(10, None), False) is None


def test_many_pairs_take_little_memory():
    """Curves take less than 3,000 bytes per pair; all resamples at once would take 17,000."""
    pairs = 20_000
    tracemalloc.start()
    curves(np.random.default_rng(0), pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000 * pairs  # bytes
