"""Test Brier score and calibration error against plain formulas, and the scalings against other optimisations."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from afqmc.evaluation.calibration import (
    ECE_BINS,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    fit_temperature_and_bias,
    fit_vector,
    negative_log_likelihood,
)
from afqmc.evaluation.metrics import log_probabilities_of, probabilities_of

RNG = np.random.default_rng(5)
LABELS = RNG.integers(3, size=400)
LOGITS = 3 * (RNG.normal(size=(400, 3)) + np.eye(3)[LABELS]) + np.array([0.0, 1.0, -1.0])
PROBABILITIES = probabilities_of(LOGITS)
TWO, BINARY = LOGITS[:, :2], (LABELS == 1).astype(int)


def test_brier_and_nll():
    """Both are those of scikit-learn: with two classes of class 1, with more summed over classes."""
    two = probabilities_of(TWO)
    assert brier_score(two, BINARY) == pytest.approx(brier_score_loss(BINARY, two[:, 1]))
    expected = brier_score_loss(LABELS, PROBABILITIES, labels=range(3), scale_by_half=False)
    assert brier_score(PROBABILITIES, LABELS) == pytest.approx(expected)
    assert negative_log_likelihood(PROBABILITIES, LABELS) == pytest.approx(log_loss(LABELS, PROBABILITIES))
    saturated = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert negative_log_likelihood(saturated, np.array([1, 1])) == pytest.approx(
        log_loss([1, 1], saturated, labels=[0, 1])
    )


def plain_ece(predicted, observed):
    """Sum over bins of their share of pairs times |mean predicted - mean observed|."""
    total = 0.0
    for index in range(ECE_BINS):
        inside = (predicted >= index / ECE_BINS) & ((predicted < (index + 1) / ECE_BINS) | (index == ECE_BINS - 1))
        if inside.any():
            total += inside.mean() * abs(predicted[inside].mean() - observed[inside].mean())
    return total


def test_calibration_error():
    """Two classes are binned by the probability of class 1, more classes by that of the likeliest."""
    two = probabilities_of(TWO)
    assert expected_calibration_error(two, BINARY) == pytest.approx(plain_ece(two[:, 1], BINARY))
    expected = plain_ece(PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == LABELS)
    assert expected_calibration_error(PROBABILITIES, LABELS) == pytest.approx(expected)
    certain = np.eye(2)[[0, 1, 1]]
    assert expected_calibration_error(certain, np.array([0, 1, 1])) == 0
    assert expected_calibration_error(certain, np.array([0, 1, 0])) == pytest.approx(1 / 3)


def test_temperature():
    """The temperature is that of another optimiser, and is recovered from logits that were scaled by it."""

    def nll(temperature):
        return -log_probabilities_of(LOGITS / temperature)[np.arange(400), LABELS].mean()

    temperature = fit_temperature(LOGITS, LABELS)
    expected = minimize(lambda x: nll(x[0]), [2.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}).x[0]
    assert temperature == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(7 * LOGITS, LABELS) == pytest.approx(7 * temperature, rel=1e-4)


def test_temperature_and_bias():
    """They are those of an unregularised logistic regression on the margins, also of saturated ones."""
    margins = TWO[:, 1] - TWO[:, 0]
    for factor in (1.0, 1e-3, 1e4):
        temperature, bias = fit_temperature_and_bias(factor * margins, BINARY)
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(margins[:, None], BINARY)
        if factor == 1e-3:  # as far as the bounds allow
            assert temperature == pytest.approx(0.1)
            continue
        expected = min(factor / model.coef_[0, 0], 1000)
        assert temperature == pytest.approx(expected, rel=1e-4)
        if expected < 1000:
            assert bias == pytest.approx(model.intercept_[0], abs=1e-4)


def test_vector_scaling():
    """Vector scaling has a lower NLL than a temperature, at a point where the gradient of the NLL vanishes."""

    def nll(parameters):
        scaled = parameters[:3] * log_probabilities_of(LOGITS) + parameters[3:]
        return -log_probabilities_of(scaled)[np.arange(400), LABELS].mean()

    scales, biases = fit_vector(LOGITS, LABELS)
    best = np.concatenate([scales, biases])
    temperature = fit_temperature(LOGITS, LABELS)
    assert nll(best) < nll(np.array([*[1 / temperature] * 3, 0, 0, 0])) - 0.01
    for direction in np.eye(6) * 1e-4:
        assert abs(nll(best + direction) - nll(best - direction)) / 2e-4 < 1e-4
    shifted = fit_vector(LOGITS + RNG.normal(size=(400, 1)), LABELS)
    assert np.allclose(np.concatenate(shifted), best, atol=1e-6), (
        "a constant added to the logits of a pair has an effect"
    )


@pytest.mark.parametrize("logits", [np.zeros((6, 2)), np.tile([0.0, 2.0], (6, 1)), np.tile([3e4, -3e4], (6, 1))])
def test_equal_logits(logits):
    """With equal logits, the calibrated probability is the share of class 1, as far as the bias reaches."""
    labels = np.array([0, 0, 1, 0, 1, 0])
    margins = logits[:, 1] - logits[:, 0]
    temperature, bias = fit_temperature_and_bias(margins, labels)
    assert temperature == 1
    assert fit_temperature(np.zeros((6, 3)), labels) == 1
    if abs(margins[0]) < 10:
        assert 1 / (1 + np.exp(-(margins[0] + bias))) == pytest.approx(1 / 3, abs=1e-4)


def test_separable_logits():
    """Without errors, the temperature stays within its bounds."""
    labels = np.array([0, 1] * 10)
    margins = np.where(labels == 1, 2.0, -2.0)
    temperature, bias = fit_temperature_and_bias(margins, labels)
    assert temperature == pytest.approx(0.1, rel=1e-2) or temperature > 0.1
    assert abs(bias) < 20
    assert fit_temperature(np.stack([-margins, margins], axis=1), labels) >= 0.1
