"""How well probabilities agree with what is observed, and the scaling of logits that makes them agree better."""

from __future__ import annotations

import numpy as np

ECE_BINS = 15
# Without errors on dev, the lowest temperature would be the best.
_LOG_TEMPERATURES = (np.log(0.1), np.log(1000.0))
_SCALES, _BIASES = (0.001, 10.0), (-20.0, 20.0)  # a scale is 1 / temperature


def brier_terms(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the squared error of each pair, (N,).

    With two classes it is that of the probability of class 1, from 0 to 1 as in scikit-learn. With more, it is the sum
    over classes (Brier 1950), from 0 to 2.

    Args:
        probabilities: (N, C).
        labels: Class indices (N,).
    """
    if probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, 1] - (labels == 1)) ** 2)
    return np.asarray(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1))


def ece_terms(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each pair (N,), and its predicted minus its observed share (N,).

    There are ``ECE_BINS`` bins of equal width. With two classes, pairs are binned by the probability of class 1, which
    is compared with the share of class 1. With more, they are binned by the probability of the likeliest class, which
    is compared with the share of correct predictions (Guo et al. 2017, Eq. 3).
    """
    if probabilities.shape[1] == 2:
        predicted, observed = probabilities[:, 1], labels == 1
    else:
        predicted, observed = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((predicted * ECE_BINS).astype(int), ECE_BINS - 1)
    return bins, predicted - observed


def nll_terms(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of each pair, (N,); probabilities are clipped as in ``sklearn.log_loss``."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(chosen, np.finfo(np.float64).eps)))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of ``brier_terms``."""
    return float(brier_terms(probabilities, labels).mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean absolute difference of predicted and observed shares over bins, weighted by their pairs."""
    bins, gaps = ece_terms(probabilities, labels)
    return float(np.abs(np.bincount(bins, gaps, minlength=ECE_BINS)).sum() / len(labels))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of ``nll_terms``."""
    return float(nll_terms(probabilities, labels).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T for which softmax(logits / T) has the smallest NLL (Guo et al. 2017, Eq. 9).

    T is between 0.1 and 1000. It is 1 if the logits of each pair are equal, since T then has no effect.

    Args:
        logits: (N, C), all finite.
        labels: Class indices (N,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = logits.astype(np.float64)
    differences = logits - logits[np.arange(len(labels)), labels][:, None]  # (N, C), from the true class
    if not differences.any():
        return 1.0

    def nll(log_temperature: float) -> float:
        return float(logsumexp(differences / np.exp(log_temperature), axis=1).mean())

    return float(np.exp(minimize_scalar(nll, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6}).x))


def fit_temperature_and_bias(margins: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return T and b for which sigmoid(margin / T + b) has the smallest NLL (Platt 1999, Eq. 1 and 3).

    With b = 0 this is temperature scaling. The bias corrects a model whose probability of class 1 is too high or too
    low on average, which a temperature cannot do.

    Args:
        margins: The logit of class 1 minus that of class 0, (N,), all finite. If all are equal, T is 1.
        labels: Class indices (N,).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    spread = float(margins.std()) or 1.0  # the inputs of the minimisation have unit variance
    inputs, signs = margins / spread, np.where(labels == 1, -1.0, 1.0)

    def nll_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scores = signs * (parameters[0] * inputs + parameters[1])
        errors = signs * expit(scores) / len(labels)
        return float(np.logaddexp(0, scores).mean()), np.array([errors @ inputs, errors.sum()])

    is_constant = margins.max() == margins.min()
    scales = (spread, spread) if is_constant else (_SCALES[0] * spread, _SCALES[1] * spread)
    start = np.array([np.clip(1.0, *scales), 0.0])
    fitted = minimize(
        nll_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[scales, _BIASES],
        options={"ftol": 1e-14, "gtol": 1e-9},
    ).x
    return float(spread / fitted[0]), float(fitted[1])


def fit_vector(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and bias of each class, (C,) each, that minimise the NLL: vector scaling (Guo et al. 2017, 4.2).

    They apply to log-probabilities, so that a constant added to all logits of a pair changes nothing.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    inputs, classes = log_softmax(logits.astype(np.float64), axis=1), logits.shape[1]
    targets = np.eye(classes)[labels]

    def nll_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        log_probabilities = log_softmax(parameters[:classes] * inputs + parameters[classes:], axis=1)
        errors = (np.exp(log_probabilities) - targets) / len(labels)  # (N, C)
        gradient = np.concatenate([(errors * inputs).sum(axis=0), errors.sum(axis=0)])
        return float(-(log_probabilities * targets).sum() / len(labels)), gradient

    start = np.concatenate([np.full(classes, 1 / fit_temperature(logits, labels)), np.zeros(classes)])
    bounds = [_SCALES] * classes + [_BIASES] * classes
    fitted = minimize(nll_and_gradient, np.clip(start, None, _SCALES[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted[:classes], fitted[classes:]
