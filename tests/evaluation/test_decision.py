"""Test that thresholds are the best ones, that cross-fitting leaks nothing, and that decision.json is read strictly."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef, precision_score, recall_score

from afqmc.data.pairs import Pairs
from afqmc.evaluation.config import Goal, check_goal, parse_goal
from afqmc.evaluation.decision import CrossFit, Decision, best_threshold, fit_decision
from afqmc.evaluation.metric_names import DECIDED_NAMES, NAMES, higher_is_better
from afqmc.utils.errors import InputError

RNG = np.random.default_rng(11)
GOALS = ("accuracy", "f1", "mcc", "precision_at:0.8", "cost:1,5", "cost:2.5,0.5")


def pairs_of(labels, sentences=None):
    """Pairs with these labels; each has sentences of its own unless they are given."""
    first = sentences or [f"a{index}" for index in range(len(labels))]
    second = [f"b{index}" for index in range(len(labels))]
    return Pairs("dev", list(range(len(labels))), first, second, list(map(int, labels)))


def value(goal: Goal, is_positive, predicted):
    """The value of a goal for predictions, higher is better, with scikit-learn."""
    match goal.name:
        case "accuracy":
            return (predicted == is_positive).mean()
        case "f1":
            return f1_score(is_positive, predicted, zero_division=0)
        case "mcc":
            return matthews_corrcoef(is_positive, predicted)
        case "cost":
            false, missed = (predicted & ~is_positive).sum(), (~predicted & is_positive).sum()
            return -(goal.values[0] * false + goal.values[1] * missed)
    if precision_score(is_positive, predicted, zero_division=0) < goal.values[0]:
        return -1
    return recall_score(is_positive, predicted)


@pytest.mark.parametrize("text", GOALS)
@pytest.mark.filterwarnings("ignore:A single label")
def test_threshold_is_best(text):
    """No other threshold is better, on pairs with many equal probabilities."""
    goal = parse_goal(text)
    for _ in range(4):
        is_positive = RNG.random(60) < 0.4
        probabilities = np.round(np.clip(0.3 * is_positive + 0.7 * RNG.random(60), 0, 1), 2)
        threshold = best_threshold(probabilities, is_positive, goal)
        best = max(value(goal, is_positive, probabilities > other) for other in [-1, *np.unique(probabilities)])
        assert value(goal, is_positive, probabilities > threshold) == pytest.approx(best)
        assert 0 <= threshold <= 1


def test_threshold_of_equals():
    """Among equally good thresholds, the one closest to 0.5 is taken; with costs, to FP / (FP + FN)."""
    probabilities, is_positive = np.array([0.1, 0.45, 0.53, 0.9]), np.array([False, True, False, True])
    assert best_threshold(probabilities, is_positive, parse_goal("accuracy")) == pytest.approx((0.53 + 0.9) / 2)
    assert best_threshold(probabilities, is_positive, parse_goal("cost:1,1.0000001")) == pytest.approx((0.1 + 0.45) / 2)
    separable = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    assert best_threshold(*separable, parse_goal("f1")) == pytest.approx(0.5)


def test_unreachable_precision():
    """If no threshold reaches the precision, the one with the highest precision is taken."""
    probabilities, is_positive = np.array([0.9, 0.8, 0.7, 0.1]), np.array([False, True, True, False])
    threshold = best_threshold(probabilities, is_positive, parse_goal("precision_at:0.9"))
    assert 0.1 < threshold < 0.7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy", Goal("accuracy", "accuracy")),
        ("precision_at:0.9", Goal("precision_at:0.9", "precision_at", (0.9,))),
        ("cost:1,5", Goal("cost:1,5", "cost", (1.0, 5.0))),
    ],
)
def test_goals(text, expected):
    """Goals are read as written."""
    assert parse_goal(text) == expected
    assert parse_goal("cost:1,4").preferred_threshold == 0.2


@pytest.mark.parametrize(
    "text",
    ["", "acc", "f1 ", "precision_at", "precision_at:0", "precision_at:1", "precision_at:nan", "precision_at:-0.5",
     "cost:1", "cost:0,1", "cost:1,-2", "cost:1,inf", "cost:1,2,3", "cost:1e99,1", "accuracy:0.5", "precision_at:٠"],
)  # fmt: skip
def test_invalid_goals(text):
    """Anything else is rejected with the allowed goals."""
    with pytest.raises(InputError, match="no such goal; allowed: accuracy, f1"):
        parse_goal(text)


def test_goals_of_more_classes():
    """With more than two classes, only the accuracy has a meaning: there is no threshold."""
    check_goal("accuracy", 3)
    check_goal(None, 3)
    check_goal("f1", 2)
    for text in GOALS[1:]:
        with pytest.raises(InputError, match="needs two classes, and the data have 3"):
            check_goal(text, 3)


def test_directions():
    """Losses and calibration errors are better when lower, everything else when higher."""
    lower = {name for name in (*NAMES, *DECIDED_NAMES) if not higher_is_better(f"dev/{name}")}
    assert lower == {"loss", "brier", "ece", "nll_calibrated", "brier_calibrated", "ece_calibrated"}


def test_cross_fitting_leaks_nothing():
    """On logits without information, the best threshold looks good on its own pairs, but not when cross-fitted."""
    labels = np.arange(200) % 2
    in_sample, cross_fitted = [], []
    for _ in range(20):
        logits = np.stack([np.zeros(200), RNG.normal(size=200)], axis=1)
        cross_fit = CrossFit.of(pairs_of(labels), "accuracy", 5)
        in_sample.append(cross_fit.fit(logits).apply(logits).metrics(labels)["accuracy_decided"])
        cross_fitted.append(cross_fit.metrics(logits)["accuracy_decided"])
    assert np.mean(in_sample) > 0.53
    assert np.mean(cross_fitted) < 0.515


def test_cross_fitting_ignores_own_labels():
    """The outcome of a part does not depend on the labels in it."""
    labels = (RNG.random(100) < 0.4).astype(int)
    logits = RNG.normal(size=(100, 2)) + np.eye(2)[labels]
    cross_fit = CrossFit.of(pairs_of(labels), "mcc", 4)
    outcome, inside = cross_fit.decide(logits), cross_fit.fold_ids == 0
    changed = CrossFit(cross_fit.goal, np.where(inside, 1 - labels, labels), cross_fit.fold_ids).decide(logits)
    assert np.array_equal(outcome.probabilities[inside], changed.probabilities[inside])
    assert np.array_equal(outcome.predicted[inside], changed.predicted[inside])
    assert not np.array_equal(outcome.probabilities[~inside], changed.probabilities[~inside])


def test_parts():
    """Parts are even and the same each time, and pairs that share a sentence are in the same part."""
    labels, sentences = np.arange(90) % 3 == 0, [f"s{index // 2}" for index in range(90)]
    cross_fit = CrossFit.of(pairs_of(labels, sentences), "accuracy", 5)
    assert np.array_equal(cross_fit.fold_ids, CrossFit.of(pairs_of(labels, sentences), "accuracy", 5).fold_ids)
    assert (cross_fit.fold_ids[::2] == cross_fit.fold_ids[1::2]).all()
    for label in (0, 1):
        counts = np.bincount(cross_fit.fold_ids[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 2
    shared = CrossFit.of(pairs_of(labels, ["one"] * 90), "accuracy", 5)
    assert np.ptp(np.bincount(shared.fold_ids)) <= 1, "one sentence in all pairs leaves only one part"


@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [0, 0, 0, 1], [0, 1]])
def test_too_few_pairs(labels):
    """Without two classes of two pairs each, there is no decision."""
    assert CrossFit.of(pairs_of(labels), "accuracy", 5) is None


def test_fewer_pairs_than_parts():
    """With fewer pairs of a class than parts, there are fewer parts."""
    labels = np.array([0, 1, 0, 1, 0])
    cross_fit = CrossFit.of(pairs_of(labels), "f1", 5)
    assert set(cross_fit.fold_ids) == {0, 1}
    assert all(math.isfinite(value) for value in cross_fit.metrics(RNG.normal(size=(5, 2))).values())
    assert CrossFit.of(pairs_of(labels), None, 5) is None


@pytest.mark.parametrize("logits", [np.zeros((8, 2)), np.tile([5e4, -5e4], (8, 1)), np.eye(2)[[0, 1] * 4] * 6e4])
@pytest.mark.parametrize("goal", GOALS)
def test_extreme_logits(logits, goal):
    """Equal and saturated logits give finite probabilities, a threshold in range, and finite figures."""
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 0])
    cross_fit = CrossFit.of(pairs_of(labels), goal, 3)
    decision = cross_fit.fit(logits)
    assert 0 <= decision.threshold <= 1
    assert all(map(math.isfinite, cross_fit.metrics(logits).values()))
    assert Decision.from_dict(decision.to_dict(), 2) == decision


def test_nonfinite_logits():
    """If a dev logit is not finite there is no decision, and all figures are NaN; other rows keep their outcome."""
    labels, logits = np.array([0, 1] * 5), RNG.normal(size=(10, 2))
    decision = CrossFit.of(pairs_of(labels), "accuracy", 2).fit(logits)
    expected = decision.apply(logits).probabilities
    logits[3, 0] = math.nan
    cross_fit = CrossFit.of(pairs_of(labels), "accuracy", 2)
    assert cross_fit.fit(logits) is None
    assert all(map(math.isnan, cross_fit.metrics(logits).values()))
    outcome = decision.apply(logits)
    assert np.isnan(outcome.probabilities[3]).all()
    assert np.array_equal(np.delete(outcome.probabilities, 3, 0), np.delete(expected, 3, 0))


def test_three_classes():
    """With three classes, the likeliest calibrated class is predicted; a rare class shares the temperature."""
    labels = np.arange(120) % 3
    logits = 4 * np.eye(3)[labels] + RNG.normal(size=(120, 3)) * 3 + np.array([2.0, 0, 0])
    cross_fit = CrossFit.of(pairs_of(labels), "accuracy", 5)
    decision, metrics = cross_fit.fit(logits), cross_fit.metrics(logits)
    assert tuple(metrics) == DECIDED_NAMES
    outcome = decision.apply(logits)
    assert np.array_equal(outcome.predicted, outcome.probabilities.argmax(axis=1))
    assert Decision.from_dict(decision.to_dict(), 3) == decision
    assert metrics["accuracy_decided"] > (logits.argmax(axis=1) == labels).mean() - 0.05
    rare = fit_decision(logits[:40], np.where(labels[:40] == 2, 0, labels[:40]), parse_goal("accuracy"))
    assert len(set(rare.scales)) == 1
    assert rare.biases == (0, 0, 0)


GOOD = {"metric": "f1", "pairs": 10, "temperature": 1.5, "bias": -0.25, "threshold": 0.4}


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"temperature": -1}, {"temperature": math.nan}, {"temperature": math.inf},
     {"temperature": "1"}, {"temperature": True}, {"temperature": 10**400}, {"bias": None}, {"bias": 1e9},
     {"threshold": 1.1}, {"threshold": -0.1}, {"threshold": [0.5]}, {"metric": "x"}, {"metric": 3},
     {"metric": "f1" * 100}, {"pairs": 0}, {"pairs": 1.5}, {"pairs": True}, {"more": 1}, {"scales": [1, 1]}],
)  # fmt: skip
def test_invalid_files(change):
    """A decision.json with a wrong key, type or range is rejected."""
    assert Decision.from_dict(GOOD, 2).threshold == 0.4
    with pytest.raises(InputError, match="must be|no such goal"):
        Decision.from_dict(GOOD | change, 2)


@pytest.mark.parametrize("content", [None, [], "x", 1, {}, {"metric": "f1"}, {**GOOD, "bias": math.nan}])
def test_invalid_contents(content):
    """Anything but an object with the expected keys is rejected."""
    with pytest.raises(InputError, match="must be"):
        Decision.from_dict(content, 2)
    good = {"metric": "accuracy", "pairs": 10, "scales": [1, 1, 1.0], "biases": [0, 0, 0]}
    assert Decision.from_dict(good, 3).num_labels == 3
    with pytest.raises(InputError, match="needs two classes"):
        Decision.from_dict(good | {"metric": "cost:1,5"}, 3)
    for count in (2, 4):
        with pytest.raises(InputError, match="must be"):
            Decision.from_dict(good, count)
