"""Metrics: as worked out by hand, NaN where the labels leave one undefined, and a collapsed model is seen."""

import math

import numpy as np
import pytest
import torch

from afqmc.metrics.classification import NAMES, classification_metrics, collapsed_class, probabilities_of

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32)
LABELS = RNG.integers(3, size=60)


def area(scores, positive):
    """The share of (positive, negative) pairs that the scores put in order."""
    above = scores[positive][:, None] - scores[~positive][None, :]
    return np.mean((above > 0) + (above == 0) / 2)


def average_precision(scores, positive):
    """Precision at each positive, going down by score."""
    hits = positive[np.argsort(-scores)]
    return np.mean((hits.cumsum() / np.arange(1, len(hits) + 1))[hits])


def test_two_classes_give_the_metrics_of_class_1():
    # predicted 1 1 0 0 1 0 0 0: two hits, one false alarm, one miss, four rejections
    logits = np.array([[0, 1], [0, 2], [1, 0], [2, 0], [0, 3], [3, 0], [4, 0], [5, 0]], np.float32)
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    found = classification_metrics(logits, labels)
    assert tuple(found) == NAMES
    assert found["accuracy"] == 6 / 8
    assert found["majority_accuracy"] == 5 / 8
    assert found["precision"] == found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["mcc"] == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert found["auc"] == pytest.approx(12 / 15)
    assert found["average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_three_classes_give_macro_means():
    logits = np.eye(3)[[0, 1, 2, 1]]
    found = classification_metrics(logits, np.array([0, 1, 2, 2]))
    assert (found["accuracy"], found["majority_accuracy"]) == (3 / 4, 1 / 2)
    assert found["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_auc_and_average_precision_of_three_classes_are_one_against_the_rest():
    found, probabilities = classification_metrics(LOGITS, LABELS), probabilities_of(LOGITS)
    each = [(probabilities[:, label], label == LABELS) for label in range(3)]
    assert found["auc"] == pytest.approx(np.mean([area(*one) for one in each]))
    assert found["average_precision"] == pytest.approx(np.mean([average_precision(*one) for one in each]))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_is_torchs_cross_entropy(classes):
    logits, labels = LOGITS[:, :classes], LABELS % classes
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert classification_metrics(logits, labels)["loss"] == pytest.approx(expected.item())


def test_auc_is_nan_where_a_class_does_not_occur():
    for logits, labels in ((LOGITS[:, :2], np.zeros(60, int)), (LOGITS, LABELS % 2)):
        found = classification_metrics(logits, labels)
        assert {name for name in NAMES if math.isnan(found[name])} == {"auc", "average_precision"}
        assert found["majority_accuracy"] == np.bincount(labels).max() / 60


def test_a_model_that_never_says_yes_scores_0_and_warns_of_nothing():
    found = classification_metrics(np.tile([1.0, 0.0], (4, 1)), np.array([0, 1, 0, 1]))
    assert (found["precision"], found["recall"], found["f1"], found["mcc"]) == (0, 0, 0, 0)
    assert (found["accuracy"], found["auc"]) == (0.5, 0.5)


def test_probabilities_add_up_to_1_in_double_precision():
    found = probabilities_of(np.array([[1e4, 0], [-1e4, 0], [0, 0]], np.float32))
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 0], [0, 1], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("counts", "expected"), [((1000, 0), 0), ((5, 995), 1), ((6, 994), None), ((400, 600), None), ((0, 0, 7), 2)]
)
def test_a_model_that_puts_all_but_half_a_percent_in_one_class_has_collapsed(counts, expected):
    predicted = np.repeat(np.arange(len(counts)), counts)
    assert collapsed_class(np.eye(len(counts))[predicted]) == expected


def test_a_split_of_one_class_that_is_predicted_throughout_warns_of_nothing():
    assert classification_metrics(np.tile([1.0, 0.0], (4, 1)), np.zeros(4, int))["accuracy"] == 1


def test_logits_that_are_nan_give_nan_and_no_error():
    found = classification_metrics(np.array([[math.nan, 0], [1, 0]]), np.array([0, 1]))
    assert math.isnan(found["loss"])
    assert math.isnan(found["auc"])
