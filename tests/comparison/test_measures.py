"""Check resampled metrics against scikit-learn, resample by resample."""

import time
from dataclasses import replace

import numpy as np
import pytest
from simulated import answers_of, simulate
from sklearn import metrics as sk

from afqmc.comparison.bootstrap import resample
from afqmc.evaluation.decision import Decided
from afqmc.evaluation.metrics import classification_metrics, probabilities_of
from afqmc.results.resampled_metrics import MEASURES, LabelledPredictions, resample_counts, resampled_metric

RNG = np.random.default_rng(5)


def logits_of(gold, classes):
    """To one digit: with equal scores."""
    return (RNG.normal(0, 1, (len(gold), classes)) + (gold[:, None] == np.arange(classes))).round(1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MEASURES)
def test_resampled_metrics_match_classification_metrics(name, classes):
    """A resampled metric equals the metric that a run records for the same rows."""
    gold, rows = RNG.integers(0, classes, 80), RNG.integers(0, 80, (4, 80))
    models = [logits_of(gold, classes) for _ in range(2)]
    decided = [
        Decided(probabilities_of(logits / 2 + 0.3), logits_of(gold, classes).argmax(axis=1)) for logits in models
    ]
    answers = [
        replace(answers_of(gold, logits), calibrated=outcome.probabilities, decided=outcome.predicted)
        for logits, outcome in zip(models, decided, strict=True)
    ]
    result = resampled_metric(name, answers, resample_counts(rows, 80))
    recorded = [
        [
            (
                classification_metrics(logits[row], gold[row])
                | Decided(outcome.probabilities[row], outcome.predicted[row]).metrics(gold[row])
            )[name]
            for row in rows
        ]
        for logits, outcome in zip(models, decided, strict=True)
    ]
    assert result == pytest.approx(np.array(recorded), abs=1e-5)


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "mcc"])
def test_single_predicted_class_matches(name):
    """A model that predicts a single class has the metrics that a run records."""
    gold, logits = np.array([0, 0, 1]), np.array([[1.0, 0.0]] * 3)
    result = resampled_metric(name, [answers_of(gold, logits)], np.ones((3, 1), dtype=np.float32)).item()
    assert result == pytest.approx(classification_metrics(logits, gold)[name])


def test_undefined_resamples_are_dropped():
    """Ranking metrics are undefined without one of the classes; such resamples are dropped."""
    answers = [
        LabelledPredictions(np.array([1, 0, 0]), np.array([1, 0, 0]), np.log([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3]]))
    ]
    weights = np.array([[0, 1], [2, 1], [1, 1]], dtype=np.float32)
    for name in ("roc_auc", "average_precision"):
        assert np.isnan(resampled_metric(name, answers, weights)).tolist() == [[True, False]]
        result = resample(name, answers, 200)
        assert 0 < len(result.draws) < 200
        assert (result.draws == 1).all()


def test_runs_share_the_resamples():
    """All runs are evaluated on the same resamples."""
    answers, _ = simulate(np.random.default_rng(0), 1, 2, 60)
    result = resample("roc_auc", [answers[0], answers[1], answers[0]], 50)
    assert (result.draws[:, 0] == result.draws[:, 2]).all()
    assert result.values[0] == pytest.approx(sk.roc_auc_score(answers[0].gold, answers[0].probabilities[:, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "roc_auc"])
def test_resampling_takes_seconds(name):
    """2,000 resamples of a dev set take less than four seconds of CPU time."""
    answers, _ = simulate(np.random.default_rng(0), 3, 5, 4316)
    resample(name, answers, 10)
    since = time.process_time()
    resample(name, answers, 2000)
    assert time.process_time() - since < 4
