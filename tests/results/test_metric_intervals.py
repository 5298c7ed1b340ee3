"""Tests of the intervals of one model's metrics."""

import numpy as np
import pytest
from simulated import simulate

from afqmc.results.metric_intervals import metric_intervals
from afqmc.results.resampled_metrics import MEASURES, resampled_metric


def metrics_of(answers):
    return {
        name: resampled_metric(name, [answers], np.ones((len(answers.gold), 1), dtype=np.float32)).item()
        for name in MEASURES
    }


def test_intervals_contain_the_metrics():
    """Each metric lies in its interval, and the interval of the accuracy has the width of a binomial one."""
    (answers,), _ = simulate(np.random.default_rng(0), 1, 1, 2000)
    intervals = metric_intervals(answers.logits, answers.gold)
    for name, value in metrics_of(answers).items():
        low, high = intervals[name]
        assert low < value < high
    accuracy = metrics_of(answers)["accuracy"]
    low, high = intervals["accuracy"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.15)


def test_intervals_cover_the_truth():
    """The true accuracy and AUC are in 95% of the intervals, within chance."""
    (many,), _ = simulate(np.random.default_rng(99), 1, 1, 100_000, seed_sd=0)
    truth, covered = metrics_of(many), {"accuracy": 0, "roc_auc": 0}
    for trial in range(150):
        (answers,), _ = simulate(np.random.default_rng(trial), 1, 1, 300, seed_sd=0)
        for name, (low, high) in metric_intervals(answers.logits, answers.gold, covered).items():
            covered[name] += low <= truth[name] <= high
    assert min(covered.values()) >= 150 * 0.88


def test_groups_widen_intervals():
    (answers,), _ = simulate(np.random.default_rng(0), 1, 1, 300)
    logits, gold = np.repeat(answers.logits, 4, axis=0), np.repeat(answers.gold, 4)
    alone = metric_intervals(logits, gold, ["accuracy"])["accuracy"]
    together = metric_intervals(logits, gold, ["accuracy"], np.repeat(np.arange(300), 4))["accuracy"]
    assert together[1] - together[0] > 1.7 * (alone[1] - alone[0])


def test_undefined_metrics_have_no_interval():
    """With one class there is no AUC; with NaN logits there is no interval at all."""
    logits = np.array([[0.1, 0.2], [0.3, 0.1], [0.0, 1.0]])
    assert "roc_auc" not in metric_intervals(logits, np.array([1, 1, 1]))
    assert metric_intervals(np.full((3, 2), np.nan), np.array([0, 1, 0])) == {}
