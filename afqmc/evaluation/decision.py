"""Decisions: calibrated probabilities, and the probability from which on a pair is predicted as the second label.

A decision is fitted on the dev logits of the best weights. Its figures are cross-fitted: each part of dev is decided by
what the other parts chose, so that no figure is computed on the pairs that a threshold was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from afqmc.data.folds import assign_folds, connected_groups
from afqmc.data.pairs import Pairs
from afqmc.evaluation.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    fit_temperature_and_bias,
    fit_vector,
    negative_log_likelihood,
)
from afqmc.evaluation.config import Goal, check_goal, parse_goal
from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.evaluation.metrics import decision_metrics, has_prediction, log_probabilities_of, probabilities_of
from afqmc.utils.errors import InputError

DECISION_FILE = "decision.json"  # beside the weights
_FOLD_SEED = 0  # of the parts of dev: the same for all runs, so that they can be compared
_MIN_PAIRS = 10  # of each class, to fit a scale and a bias per class
_MAX_TEXT, _MAX_NUMBER = 100, 1e6  # characters of a goal, and absolute value of a factor or bias


@dataclass(frozen=True)
class Decided:
    """The outcome of a decision.

    Attributes:
        probabilities: Calibrated, (N, C); NaN without a prediction.
        predicted: Class indices, (N,).
        abstained: Whether a pair is left without a prediction, (N,); None if abstaining was not asked for.
        truncated: Whether a pair was cut to the maximum length, (N,); None if no pair was.
    """

    probabilities: np.ndarray
    predicted: np.ndarray
    abstained: np.ndarray | None = None
    truncated: np.ndarray | None = None

    def metrics(self, labels: np.ndarray) -> dict[str, float]:
        """Return the metrics in ``DECIDED_NAMES``; all are NaN if any pair has no prediction.

        Args:
            labels: Class indices (N,).
        """
        probabilities = self.probabilities
        if not np.isfinite(probabilities).all():
            return dict.fromkeys(DECIDED_NAMES, math.nan)
        decided = decision_metrics(self.predicted, labels, probabilities.shape[1])
        return {
            **{f"{name}_decided": value for name, value in decided.items()},
            "nll_calibrated": negative_log_likelihood(probabilities, labels),
            "brier_calibrated": brier_score(probabilities, labels),
            "ece_calibrated": expected_calibration_error(probabilities, labels),
        }


@dataclass(frozen=True)
class Decision:
    """Maps logits to calibrated probabilities and predicted classes.

    With two classes, the probability of class 1 is sigmoid(margin / temperature + bias), where the margin is the logit
    of class 1 minus that of class 0. A pair is predicted as class 1 if its probability is above the threshold. With
    more classes, probabilities are softmax(scales * log-probabilities + biases), and the likeliest class is predicted.

    Attributes:
        metric: The goal, as in ``decision.metric``.
        pairs: Number of dev pairs that it was fitted on.
        temperature: For two classes.
        bias: For two classes.
        threshold: For two classes, a calibrated probability.
        scales: For more classes, one per class.
        biases: For more classes, one per class.
    """

    metric: str
    pairs: int
    temperature: float | None = None
    bias: float | None = None
    threshold: float | None = None
    scales: tuple[float, ...] | None = None
    biases: tuple[float, ...] | None = None

    @property
    def num_labels(self) -> int:
        """The number of classes."""
        return 2 if self.scales is None else len(self.scales)

    def apply(self, logits: np.ndarray) -> Decided:
        """Return the outcome for logits (N, C)."""
        if self.scales is not None:
            scaled = np.array(self.scales) * log_probabilities_of(logits) + np.array(self.biases)
            probabilities = probabilities_of(scaled)
            return Decided(probabilities, probabilities.argmax(axis=1))
        assert self.temperature is not None
        assert self.bias is not None
        probabilities = _two_probabilities(margins_of(logits) / self.temperature + self.bias)
        return Decided(probabilities, (probabilities[:, 1] > self.threshold).astype(int))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of decision.json."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the metrics of the outcome for logits (N, C) and classes (N,); see ``CrossFit.metrics``."""
        return _metrics(self.apply(logits), logits, labels, parse_goal(self.metric))

    @classmethod
    def from_dict(cls, content: Any, num_labels: int) -> Decision:
        """Read the content of an untrusted decision.json.

        Args:
            content: Of the file, as parsed from JSON.
            num_labels: The number of classes of the model.

        Raises:
            InputError: with the first entry that is missing or invalid.
        """
        numbers = ("temperature", "bias", "threshold") if num_labels == 2 else ("scales", "biases")
        names = ("metric", "pairs", *numbers)
        if not isinstance(content, dict) or set(content) != set(names):
            raise InputError(f"must be a JSON object with the keys {', '.join(names)}")
        metric, pairs = content["metric"], content["pairs"]
        if not isinstance(metric, str) or len(metric) > _MAX_TEXT:
            raise InputError("metric: must be a text")
        check_goal(metric, num_labels)
        if type(pairs) is not int or not 0 < pairs < 2**53:
            raise InputError("pairs: must be a positive integer")
        if num_labels == 2:
            temperature = _number("temperature", content["temperature"], 1e-6, 1e6)
            bias = _number("bias", content["bias"], -_MAX_NUMBER, _MAX_NUMBER)
            return cls(metric, pairs, temperature, bias, _number("threshold", content["threshold"], 0, 1))
        scales, biases = (_numbers(name, content[name], num_labels) for name in numbers)
        return cls(metric, pairs, scales=scales, biases=biases)

    def describe_use(self) -> str:
        """Say for predictions which decision they follow."""
        return f"decision for {self.metric} on {self.pairs} dev pairs: {self.describe()}"

    def describe(self) -> str:
        """Return threshold and temperature in words, for messages."""
        if self.threshold is None:
            return "calibrated by vector scaling"
        return f"threshold {self.threshold:.4f}, temperature {self.temperature:.4f}, bias {self.bias:.4f}"


def _number(name: str, value: object, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{name}: must be a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]


def _numbers(name: str, values: object, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"{name}: must be a list of {count} numbers, one per class")
    return tuple(_number(name, value, -_MAX_NUMBER, _MAX_NUMBER) for value in values)


def fit_decision(logits: np.ndarray, labels: np.ndarray, goal: Goal) -> Decision:
    """Fit temperature, bias and threshold, or with more than two classes scale and bias of each class.

    A class with fewer than 10 pairs gives no reliable scale and bias. All classes then share a temperature.

    Args:
        logits: (N, C), all finite.
        labels: Class indices (N,).
        goal: What the threshold is chosen for.
    """
    classes = logits.shape[1]
    if classes == 2:
        margins = margins_of(logits)
        temperature, bias = fit_temperature_and_bias(margins, labels)
        positive = _two_probabilities(margins / temperature + bias)[:, 1]
        return Decision(goal.text, len(labels), temperature, bias, best_threshold(positive, labels == 1, goal))
    if np.bincount(labels, minlength=classes).min() < _MIN_PAIRS:
        scales, biases = np.full(classes, 1 / fit_temperature(logits, labels)), np.zeros(classes)
    else:
        scales, biases = fit_vector(logits, labels)
    return Decision(goal.text, len(labels), scales=tuple(scales.tolist()), biases=tuple(biases.tolist()))


def margins_of(logits: np.ndarray) -> np.ndarray:
    """Return the logit of class 1 minus that of class 0 in float64: (N, 2) to (N,)."""
    logits = logits.astype(np.float64)
    return np.asarray(logits[:, 1] - logits[:, 0])


def _two_probabilities(log_odds: np.ndarray) -> np.ndarray:
    """Return the probabilities of both classes, (N, 2), from the log-odds of class 1 (N,)."""
    return probabilities_of(np.stack([np.zeros_like(log_odds), log_odds], axis=1))


def best_threshold(probabilities: np.ndarray, is_positive: np.ndarray, goal: Goal) -> float:
    """Return the threshold that is best for a goal, from 0 to 1. Pairs with a higher probability are positive.

    It is halfway between two neighbouring probabilities, or 0 or 1. Of equally good ones, it is the one that is closest
    to the best threshold on true probabilities, which is 0.5 except for costs.

    Args:
        probabilities: Of class 1, (N,).
        is_positive: Whether each pair belongs to class 1, (N,).
        goal: What is maximised, or for costs minimised.
    """
    values, index = np.unique(probabilities, return_inverse=True)  # ascending
    positives = np.bincount(index, is_positive)
    counts = np.bincount(index)
    middle = (values[:-1] + values[1:]) / 2
    thresholds = np.concatenate([[0.0], np.where(middle < values[1:], middle, values[:-1]), [1.0]])
    # true and false positives of each threshold: the sums over the values above it
    true, both = (np.concatenate([np.cumsum(sums[::-1])[::-1], [0]]) for sums in (positives, counts))
    scores = _scores(goal, true, both - true, int(is_positive.sum()), len(index))
    if values[0] == 0:
        scores[0] = -np.inf  # no probability is below 0, so 0 does not make these pairs positive
    best = np.flatnonzero(scores >= scores.max() - 1e-12 * abs(scores.max()))
    return float(thresholds[best[np.abs(thresholds[best] - goal.preferred_threshold).argmin()]])


def _scores(goal: Goal, true: np.ndarray, false: np.ndarray, positives: int, pairs: int) -> np.ndarray:
    """Return a score to maximise, given the true and the false positives of each threshold."""
    true, false = true.astype(np.float64), false.astype(np.float64)
    missed, predicted = positives - true, true + false

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))

    match goal.name:
        case "accuracy":
            return np.asarray(-(false + missed))
        case "f1":
            return ratio(2 * true, predicted + positives)
        case "mcc":
            covariance = true * pairs - predicted * positives
            variance = predicted * (pairs - predicted) * positives * (pairs - positives)
            return ratio(covariance, np.sqrt(variance))
        case "cost":
            return np.asarray(-(goal.values[0] * false + goal.values[1] * missed))
    precision = ratio(true, predicted)  # the highest recall at this precision, else the highest precision
    return np.where(precision >= goal.values[0], 1 + true, precision)


@dataclass(frozen=True)
class CrossFit:
    """The parts of dev for cross-fitting.

    Attributes:
        goal: What the threshold is chosen for.
        labels: Class indices (N,).
        fold_ids: The part of each pair, (N,).
    """

    goal: Goal
    labels: np.ndarray
    fold_ids: np.ndarray

    @classmethod
    def of(cls, pairs: Pairs, metric: str | None, folds: int) -> CrossFit | None:
        """Divide labelled pairs into parts as ``of_groups`` does; pairs that share a sentence are a group."""
        return cls.of_groups(
            np.asarray(pairs.labels), connected_groups(pairs.sentence1, pairs.sentence2), metric, folds
        )

    @classmethod
    def of_groups(cls, labels: np.ndarray, groups: np.ndarray, metric: str | None, folds: int) -> CrossFit | None:
        """Divide labels (N,) into parts of similar size and class counts; those of a group (N,) stay together.

        There are at most as many parts as a class has pairs. Where shared sentences connect so many pairs that a part
        would leave no pair of some class to the others, they are not kept together.

        Returns:
            None without a goal, and if fewer than two classes have two pairs.
        """
        if metric is None or not can_cross_fit(np.bincount(labels).tolist()):
            return None
        counts = np.bincount(labels)
        folds = min(folds, int(counts[counts > 1].min()))
        for group_ids in (groups, np.arange(len(labels))):
            fold_ids = assign_folds(group_ids, labels, folds, _FOLD_SEED)
            if _leaves_two_classes(fold_ids, labels):
                break
        return cls(parse_goal(metric), labels, fold_ids)

    def fit(self, logits: np.ndarray) -> Decision | None:
        """Return the decision of all pairs, or None if a pair has no prediction."""
        return fit_decision(logits, self.labels, self.goal) if has_prediction(logits).all() else None

    def decide(self, logits: np.ndarray, fitted_on: np.ndarray | None = None) -> Decided:
        """Return the outcome for all pairs (N, C), each decided by a decision that was fitted on the other parts.

        Args:
            logits: To decide.
            fitted_on: Other logits (N, C) of the same pairs, that the decisions are fitted on.
        """
        fitted_on = logits if fitted_on is None else fitted_on
        decided = Decided(np.full(logits.shape, np.nan), np.zeros(len(logits), dtype=int))
        if not (has_prediction(logits).all() and has_prediction(fitted_on).all()):
            return decided
        for fold in np.unique(self.fold_ids):
            inside = self.fold_ids == fold
            outcome = fit_decision(fitted_on[~inside], self.labels[~inside], self.goal).apply(logits[inside])
            decided.probabilities[inside], decided.predicted[inside] = outcome.probabilities, outcome.predicted
        return decided

    def metrics(self, logits: np.ndarray) -> dict[str, float]:
        """Return the cross-fitted metrics in ``DECIDED_NAMES``.

        If the goal is a cost, also ``cost`` and ``cost_decided``: per pair, of the likeliest and the decided labels.
        """
        return _metrics(self.decide(logits), logits, self.labels, self.goal)


def _metrics(decided: Decided, logits: np.ndarray, labels: np.ndarray, goal: Goal) -> dict[str, float]:
    metrics = decided.metrics(labels)
    if goal.name == "cost":
        predicted = {"cost": logits.argmax(axis=1), "cost_decided": decided.predicted}
        is_complete = has_prediction(logits).all()
        metrics |= {
            name: goal.cost(classes, labels) if is_complete else math.nan for name, classes in predicted.items()
        }
    return metrics


def can_cross_fit(counts: Sequence[int]) -> bool:
    """Return whether dev has two classes with at least two pairs each, given its pairs per class."""
    return sum(count > 1 for count in counts) > 1


def _leaves_two_classes(fold_ids: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether there are several parts, and each leaves at least two classes to the others."""
    folds = np.unique(fold_ids)
    return len(folds) > 1 and all(len(np.unique(labels[fold_ids != fold])) > 1 for fold in folds)
