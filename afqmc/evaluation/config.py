"""The ``decision`` config group, and the goal that a decision is chosen for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from afqmc.utils.errors import InputError
from afqmc.utils.fields import config_field

if TYPE_CHECKING:
    import numpy as np

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
_MAX_COST = 1e9


@dataclass
class DecisionConfig:
    """Calibration and threshold, fitted on dev after training."""

    metric: Optional[str] = config_field(
        None,
        "the goal of the decision threshold: accuracy, f1, mcc, precision_at:0.9 or cost:FP,FN (the costs of a false "
        "positive and a false negative); null: no threshold and no calibration",
    )
    folds: int = config_field(
        5, "parts of dev for the cross-fitted figures: each is decided by what the other parts chose", ge=2, le=100
    )


@dataclass(frozen=True)
class Goal:
    """The goal of a decision threshold.

    Attributes:
        text: As it is written in ``decision.metric``.
        name: ``accuracy``, ``f1``, ``mcc``, ``precision_at`` or ``cost``.
        values: The precision of ``precision_at``, or the costs of a false positive and a false negative.
    """

    text: str
    name: str
    values: tuple[float, ...] = ()

    @property
    def needs_two_classes(self) -> bool:
        """Whether it is defined by a threshold. With more classes, the likeliest label maximises the accuracy."""
        return self.name != "accuracy"

    def cost(self, predicted: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean cost per pair of predicted classes (N,), given the true ones (N,). Only for ``cost``."""
        false_positives, false_negatives = predicted > labels, predicted < labels
        return float((self.values[0] * false_positives + self.values[1] * false_negatives).mean())

    @property
    def preferred_threshold(self) -> float:
        """The best threshold on true probabilities (Elkan 2001, Eq. 2); breaks ties."""
        return self.values[0] / sum(self.values) if self.name == "cost" else 0.5


def parse_goal(text: str) -> Goal:
    """Read a goal as it is written in ``decision.metric``.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    if text in ("accuracy", "f1", "mcc"):
        return Goal(text, text)
    if match := re.fullmatch(rf"precision_at:({_NUMBER})", text, re.ASCII):
        if 0 < (precision := float(match[1])) < 1:
            return Goal(text, "precision_at", (precision,))
    elif match := re.fullmatch(rf"cost:({_NUMBER}),({_NUMBER})", text, re.ASCII):
        costs = float(match[1]), float(match[2])
        if all(0 < cost <= _MAX_COST for cost in costs):
            return Goal(text, "cost", costs)
    raise InputError(
        f"decision.metric={text}: no such goal; allowed: accuracy, f1, mcc, precision_at:P (0 < P < 1) or cost:FP,FN "
        "(both > 0)"
    )


def check_goal(text: str | None, num_labels: int) -> None:
    """Check that a goal is defined for the number of classes of the data.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    if text is not None and parse_goal(text).needs_two_classes and num_labels != 2:
        raise InputError(
            f"decision.metric={text}: needs two classes, and the data have {num_labels}; allowed: accuracy, null"
        )
