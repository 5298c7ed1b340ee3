"""What is searched: a key and its distribution, perhaps on a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        key: As in an override.
        distribution: Optuna's; its choices are texts, as they are typed.
        condition: Key and value, as texts, of another parameter that has to be so; else this one is left out.
    """

    key: str
    distribution: BaseDistribution
    condition: Optional[tuple[str, str]] = None

    def override(self, value: Any) -> str:
        """``key=value``; ``repr`` gives a float's every digit."""
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def ends(self) -> list[Any]:
        """The values that show whether all are legal: every choice, or both ends of a range."""
        from optuna.distributions import CategoricalDistribution

        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        return [found.low, found.high]  # type: ignore[attr-defined]


def suggested(trial: Trial, axes: Sequence[Axis]) -> list[str]:
    """The overrides of a trial, in the order of the axes; the same each time that it is asked."""
    values: dict[str, Any] = {}
    overrides = []
    for axis in axes:
        if axis.condition is not None and str(values.get(axis.condition[0])) != axis.condition[1]:
            continue
        values[axis.key] = _suggested(trial, axis)
        overrides.append(axis.override(values[axis.key]))
    return overrides


def _suggested(trial: Trial, axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = axis.distribution
    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(axis.key, found.choices)
    if isinstance(found, IntDistribution):
        return trial.suggest_int(axis.key, found.low, found.high, step=found.step, log=found.log)
    assert isinstance(found, FloatDistribution)
    return trial.suggest_float(axis.key, found.low, found.high, step=found.step, log=found.log)


def corners(axes: Sequence[Axis]) -> list[list[str]]:
    """Overrides of few trials, in which every end of every axis occurs; a condition is made true for its axis."""
    found = []
    for axis in axes:
        fixed = {axis.condition[0]: axis.condition[1]} if axis.condition else {}
        for end in axis.ends():
            values = {other.key: other.ends()[0] for other in axes if other.condition is None} | fixed | {axis.key: end}
            by_key = {other.key: other for other in axes}
            found.append([by_key[key].override(value) for key, value in values.items()])
    return found
