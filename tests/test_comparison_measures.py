"""Metrics of many resamples at once are scikit-learn's, resample by resample."""

import time

import numpy as np
import pytest
from simulated import answers_of, world
from sklearn import metrics as sk

from afqmc.comparison.bootstrap import resample
from afqmc.evaluation.metrics import classification_metrics
from afqmc.results.resampled_metrics import MEASURES, LabelledPredictions, resample_counts, resampled_metric

RNG = np.random.default_rng(5)


def logits_of(gold, classes):
    """To one digit: with equal scores."""
    return (RNG.normal(0, 1, (len(gold), classes)) + (gold[:, None] == np.arange(classes))).round(1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MEASURES)
def test_a_metric_of_resamples_is_what_a_run_would_have_recorded(name, classes):
    gold, rows = RNG.integers(0, classes, 80), RNG.integers(0, 80, (4, 80))
    models = [logits_of(gold, classes) for _ in range(2)]
    found = resampled_metric(name, [answers_of(gold, logits) for logits in models], resample_counts(rows, 80))
    recorded = [[classification_metrics(logits[row], gold[row])[name] for row in rows] for logits in models]
    assert found == pytest.approx(np.array(recorded), abs=1e-5)


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "mcc"])
def test_a_model_that_says_one_class_only_has_the_figures_that_a_run_writes(name):
    gold, logits = np.array([0, 0, 1]), np.array([[1.0, 0.0]] * 3)
    found = resampled_metric(name, [answers_of(gold, logits)], np.ones((3, 1), dtype=np.float32)).item()
    assert found == pytest.approx(classification_metrics(logits, gold)[name])


def test_ranks_without_one_of_the_classes_are_undefined_and_such_resamples_left_out():
    answers = [
        LabelledPredictions(np.array([1, 0, 0]), np.array([1, 0, 0]), np.log([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3]]))
    ]
    weights = np.array([[0, 1], [2, 1], [1, 1]], dtype=np.float32)
    for name in ("auc", "average_precision"):
        assert np.isnan(resampled_metric(name, answers, weights)).tolist() == [[True, False]]
        found = resample(name, answers, 200)
        assert 0 < len(found.draws) < 200
        assert (found.draws == 1).all()


def test_all_runs_are_drawn_on_the_same_resamples():
    answers, _ = world(np.random.default_rng(0), 1, 2, 60)
    found = resample("auc", [answers[0], answers[1], answers[0]], 50)
    assert (found.draws[:, 0] == found.draws[:, 2]).all()
    assert found.values[0] == pytest.approx(sk.roc_auc_score(answers[0].gold, answers[0].probabilities[:, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "auc"])
def test_two_thousand_resamples_of_a_dev_set_take_a_couple_of_seconds(name):
    answers, _ = world(np.random.default_rng(0), 3, 5, 4316)
    resample(name, answers, 10)
    since = time.process_time()
    resample(name, answers, 2000)
    assert time.process_time() - since < 4
