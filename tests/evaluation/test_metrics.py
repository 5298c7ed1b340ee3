"""Test the metrics against values computed by hand, and their undefined cases."""

import json
import math

import numpy as np
import pytest
import torch

from afqmc.evaluation.metrics import NAMES, classification_metrics, collapsed_class, mean_as_logits, probabilities_of
from afqmc.evaluation.predictions import prediction_rows

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32)
LABELS = RNG.integers(3, size=60)


def area(scores, positive):
    """The fraction of (positive, negative) pairs that the scores rank correctly."""
    above = scores[positive][:, None] - scores[~positive][None, :]
    return np.mean((above > 0) + (above == 0) / 2)


def average_precision(scores, positive):
    """The mean precision at each positive, in descending order of scores."""
    hits = positive[np.argsort(-scores)]
    return np.mean((hits.cumsum() / np.arange(1, len(hits) + 1))[hits])


def test_two_classes():
    """With two classes, the metrics are those of class 1."""
    # predicted 1 1 0 0 1 0 0 0: two hits, one false alarm, one miss, four rejections
    logits = np.array([[0, 1], [0, 2], [1, 0], [2, 0], [0, 3], [3, 0], [4, 0], [5, 0]], np.float32)
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    metrics = classification_metrics(logits, labels)
    assert tuple(metrics) == NAMES
    assert metrics["accuracy"] == 6 / 8
    assert metrics["majority_accuracy"] == 5 / 8
    assert metrics["precision"] == metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["mcc"] == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert metrics["roc_auc"] == pytest.approx(12 / 15)
    assert metrics["average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_three_classes():
    """With three classes, the metrics are macro means."""
    logits = np.eye(3)[[0, 1, 2, 1]]
    metrics = classification_metrics(logits, np.array([0, 1, 2, 2]))
    assert (metrics["accuracy"], metrics["majority_accuracy"]) == (3 / 4, 1 / 2)
    assert metrics["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert metrics["recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert metrics["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_one_against_rest():
    """With three classes, AUC and average precision are one against the rest."""
    metrics, probabilities = classification_metrics(LOGITS, LABELS), probabilities_of(LOGITS)
    rankings = [(probabilities[:, label], label == LABELS) for label in range(3)]
    assert metrics["roc_auc"] == pytest.approx(np.mean([area(*ranking) for ranking in rankings]))
    assert metrics["average_precision"] == pytest.approx(np.mean([average_precision(*ranking) for ranking in rankings]))


@pytest.mark.parametrize("classes", [2, 3])
def test_loss_is_cross_entropy(classes):
    """The loss is the cross-entropy of PyTorch."""
    logits, labels = LOGITS[:, :classes], LABELS % classes
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert classification_metrics(logits, labels)["loss"] == pytest.approx(expected.item())


def test_auc_of_missing_class():
    """AUC and average precision are NaN if a class does not occur."""
    for logits, labels in ((LOGITS[:, :2], np.zeros(60, int)), (LOGITS, LABELS % 2)):
        metrics = classification_metrics(logits, labels)
        assert {name for name in NAMES if math.isnan(metrics[name])} == {"roc_auc", "average_precision"}
        assert metrics["majority_accuracy"] == np.bincount(labels).max() / 60


def test_no_positive_predictions():
    """Without positive predictions the metrics are 0, without a warning."""
    metrics = classification_metrics(np.tile([1.0, 0.0], (4, 1)), np.array([0, 1, 0, 1]))
    assert (metrics["precision"], metrics["recall"], metrics["f1"], metrics["mcc"]) == (0, 0, 0, 0)
    assert (metrics["accuracy"], metrics["roc_auc"]) == (0.5, 0.5)


def test_probabilities():
    """Probabilities are float64 and sum to 1."""
    probabilities = probabilities_of(np.array([[1e4, 0], [-1e4, 0], [0, 0]], np.float32))
    assert probabilities.dtype == np.float64
    assert probabilities.tolist() == [[1, 0], [0, 1], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("counts", "expected"), [((1000, 0), 0), ((5, 995), 1), ((6, 994), None), ((400, 600), None), ((0, 0, 7), 2)]
)
def test_collapsed_class(counts, expected):
    """A model collapses if it predicts one class for 99.5% of the pairs."""
    predicted = np.repeat(np.arange(len(counts)), counts)
    assert collapsed_class(np.eye(len(counts))[predicted]) == expected


def test_single_class():
    """A split of one class causes no warning."""
    assert classification_metrics(np.tile([1.0, 0.0], (4, 1)), np.zeros(4, int))["accuracy"] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [np.s_[:, :], np.s_[0, 0], np.s_[:, 1], np.s_[5, :]])
@pytest.mark.parametrize("classes", [2, 3])
def test_nonfinite_logits(value, where, classes):
    """If a logit is not finite, all metrics of predictions are NaN."""
    logits = LOGITS[:, :classes].copy()
    logits[where] = value
    metrics = classification_metrics(logits, LABELS % classes)
    assert {name for name in NAMES if not math.isnan(metrics[name])} == {"majority_accuracy"}


def test_collapse_without_predictions():
    """Rows without a prediction count for no class."""
    logits = np.tile(np.array([2.0, 1.0]), (1000, 1))
    logits[:6, 1] = math.nan
    assert collapsed_class(logits) is None
    assert collapsed_class(logits[5:]) == 0
    assert collapsed_class(np.full((10, 2), math.nan)) is None


def test_ranking_of_large_logits():
    """AUC does not change if logits are scaled until probabilities round to 1."""
    small, large = (classification_metrics(LOGITS[:, :2] * scale, LABELS % 2) for scale in (1, 1024))
    assert [large[name] for name in ("roc_auc", "average_precision")] == [small["roc_auc"], small["average_precision"]]
    assert large["loss"] > 100


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scale", [1, 40, 1000])
@pytest.mark.parametrize("as_type", [np.float64, np.float32])
def test_metrics_from_prediction_rows(classes, scale, as_type):
    """Metrics computed from the rows of a file are exactly the same."""
    logits, labels = (LOGITS[:, :classes] * scale).round(1), LABELS % classes
    names = [f"label {number}" for number in range(classes)]
    rows = [json.loads(json.dumps(row)) for row in prediction_rows(range(60), logits, labels, names)]
    again = np.array([row["logits"] for row in rows]).astype(as_type)
    assert (again == logits).all()
    gold = np.array([names.index(row["label"]) for row in rows])
    assert classification_metrics(again, gold) == classification_metrics(logits, labels)
    assert [names.index(row["prediction"]) for row in rows] == logits.argmax(axis=1).tolist()


def test_missing_predictions_are_null():
    """Rows without a prediction are null in valid JSON."""
    logits = np.array([[0.5, math.nan], [math.inf, -math.inf], [1.0, 2.0]], np.float32)
    rows = prediction_rows([7, 8, 9], logits, [0, 1, 1], ["no", "yes"])
    assert json.loads(json.dumps(rows, allow_nan=False))[:2] == [
        {"id": 7, "logits": [0.5, None], "probability": None, "prediction": None, "label": "no"},
        {"id": 8, "logits": [None, None], "probability": None, "prediction": None, "label": "yes"},
    ]
    assert rows[2]["prediction"] == "yes"


def test_mean_as_logits():
    """The mean of several models does not underflow."""
    usual = [np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])]
    mean = (probabilities_of(usual[0]) + probabilities_of(usual[1])) / 2
    np.testing.assert_allclose(mean_as_logits(usual), np.log(mean), rtol=1e-14)
    far = mean_as_logits([np.array([[0.0, 1000.0]]), np.array([[0.0, 2000.0]])])
    assert far[0, 0] == pytest.approx(-1000 - math.log(2))
