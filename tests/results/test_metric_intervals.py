"""Tests of the intervals of one model's metrics."""

import numpy as np
import pytest
from simulated import answers_of, simulate
from statsmodels.stats.proportion import proportion_confint

from afqmc.evaluation.per_class import per_class
from afqmc.results.metric_intervals import add_intervals, class_intervals, confusion_intervals, metric_intervals
from afqmc.results.resampled_metrics import MEASURES, drawable_groups, resampled_metric


def metrics_of(answers):
    return {
        name: resampled_metric(name, [answers], np.ones((len(answers.gold), 1), dtype=np.float32)).item()
        for name in MEASURES
        if not name.endswith(("_decided", "_calibrated", "ece"))
    }


def test_intervals_contain_the_metrics():
    """Each metric lies in its interval, and the interval of the accuracy has the width of a binomial one."""
    (answers,), _ = simulate(np.random.default_rng(0), 1, 1, 2000)
    intervals = metric_intervals(answers)
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
        for name, (low, high) in metric_intervals(answers, covered).items():
            covered[name] += low <= truth[name] <= high
    assert min(covered.values()) >= 150 * 0.88


def test_groups_widen_intervals():
    (answers,), _ = simulate(np.random.default_rng(0), 1, 1, 300)
    repeated = answers_of(np.repeat(answers.gold, 4), np.repeat(answers.logits, 4, axis=0))
    alone = metric_intervals(repeated, ["accuracy"])["accuracy"]
    together = metric_intervals(repeated, ["accuracy"], np.repeat(np.arange(300), 4))["accuracy"]
    assert together[1] - together[0] > 1.7 * (alone[1] - alone[0])


def test_undefined_metrics_have_no_interval():
    """With one class there is no AUC."""
    logits = np.array([[0.1, 0.2], [0.3, 0.1], [0.0, 1.0]])
    assert "roc_auc" not in metric_intervals(answers_of(np.array([1, 1, 1]), logits))


def test_intervals_by_class():
    """The F1 of class 1 of two classes has the same interval by class and over all."""
    (answers,), _ = simulate(np.random.default_rng(0), 1, 1, 500)
    by_class = class_intervals(answers, 2)
    assert by_class[1]["f1"] == metric_intervals(answers, ["f1"])["f1"]
    assert by_class[0]["recall"][0] < np.mean(answers.predicted[answers.gold == 0] == 0) < by_class[0]["recall"][1]


def test_confusion_intervals():
    """The shares of a true class have Wilson's interval; groups of repeated pairs have wider ones."""
    rng = np.random.default_rng(0)
    gold = np.repeat(rng.integers(0, 3, 200), 3)
    predicted = np.where(np.repeat(rng.random(200) < 0.7, 3), gold, (gold + 1) % 3)
    answers = answers_of(gold, np.eye(4)[predicted])
    alone, together = (confusion_intervals(answers, 4, groups) for groups in (None, np.arange(600) // 3))
    share = np.mean(predicted[gold == 0] == 1)
    assert alone[0, 1] == pytest.approx(proportion_confint(share * sum(gold == 0), sum(gold == 0), method="wilson"))
    assert alone[0, 1, 0] < share < alone[0, 1, 1]
    assert 1.4 < np.diff(together[0, 1]) / np.diff(alone[0, 1]) < 2.1
    assert alone[3].tolist() == [[0, 1]] * 4
    assert together[3].tolist() == [[0, 1]] * 4


def test_details_get_intervals():
    """Metrics, classes and the confusion matrix of three classes get their intervals."""
    gold = np.arange(300) % 3
    answers = answers_of(gold, np.random.default_rng(0).normal(size=(300, 3)))
    details = add_intervals(per_class(answers.probabilities, gold, ["a", "b", "c"]), answers, None)
    assert details["intervals"]["accuracy"] == [*metric_intervals(answers, ["accuracy"])["accuracy"]]
    assert set(details["classes"][0]["intervals"]) == {"precision", "recall", "f1"}
    assert np.shape(details["confusion_intervals"]) == (3, 3, 2)


def test_few_groups_are_not_drawn():
    """Groups are drawn if there are at least 30 of similar size; one large group would have no spread."""
    assert drawable_groups(None) is None
    assert drawable_groups(np.zeros(500, dtype=int)) is None
    assert drawable_groups(np.r_[np.zeros(400, dtype=int), np.arange(1, 101)]) is None
    many = np.repeat(np.arange(100), 5)
    assert drawable_groups(many) is many


def test_all_pairs_correct():
    """If all pairs are correct, the interval of the accuracy has a width."""
    gold = np.array([0, 1, 1])
    low, high = metric_intervals(answers_of(gold, np.eye(2)[gold]))["accuracy"]
    assert (low, high) == (pytest.approx(0.4385, abs=1e-4), 1.0)
    by_class = class_intervals(answers_of(gold, np.eye(3)[gold]), 3)
    expected = pytest.approx(proportion_confint(2, 2, method="wilson"))
    assert by_class[1]["precision"] == by_class[1]["recall"] == expected
    assert by_class[2] == {}
