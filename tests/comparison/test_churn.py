"""Tests of changed predictions between settings."""

import numpy as np
import pytest
from simulated import answers_of

from afqmc.comparison.churn import churn, churn_sentence


def runs_of(gold, *predictions):
    """Return runs with these predicted classes."""
    return [answers_of(gold, np.eye(2)[predicted]) for predicted in predictions]


def test_shares_of_changed_pairs():
    """Ten pairs: two are won, one is lost; the seeds of the second setting differ in four."""
    gold = np.ones(10, dtype=int)
    first = runs_of(gold, np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0]))
    second = runs_of(gold, np.array([1, 1, 1, 1, 1, 0, 0, 1, 0, 0]))
    result = churn(first, second, None)
    assert (result.changed, result.won, result.lost, result.between_seeds) == pytest.approx((0.3, 0.2, 0.1, None))
    twice = churn(first, [*second, *runs_of(gold, np.array([1, 0, 0, 0, 0, 0, 0, 1, 0, 0]))], None)
    assert twice.between_seeds == pytest.approx(0.4)
    text = churn_sentence("a", "b", twice)
    assert text.endswith("only with b; two seeds of one setting differ in 40.0%")


def test_gain_is_won_minus_lost():
    """The difference of the mean accuracies is the share won minus the share lost, for any number of runs."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200)
    first, second = (runs_of(gold, *(rng.integers(0, 2, 200) for _ in range(n))) for n in (3, 2))
    result = churn(first, second, None)
    accuracies = [np.mean([np.mean(run.predicted == gold) for run in runs]) for runs in (first, second)]
    assert result.won - result.lost == pytest.approx(accuracies[0] - accuracies[1])


def test_interval_covers_the_truth():
    """The interval of the share covers the true one; pairs of a group count together."""
    covered = {"alone": 0, "grouped": 0}
    for trial in range(300):
        rng = np.random.default_rng(trial)
        changed = rng.random(100) < 0.2
        for name, repeats in (("alone", 1), ("grouped", 4)):
            gold, predicted = np.zeros(100 * repeats, dtype=int), np.repeat(changed, repeats).astype(int)
            groups = np.repeat(np.arange(100), repeats)
            result = churn(runs_of(gold, gold), runs_of(gold, predicted), groups)
            covered[name] += result.low <= 0.2 <= result.high
    assert min(covered.values()) >= 0.9 * 300
