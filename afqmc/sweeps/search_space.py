"""What is searched: a key and its distribution, perhaps on a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any, Optional

from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial
from typing import TYPE_CHECKING

from optuna.samplers import BaseSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Dimension:
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

    def values(self) -> list[Any]:
        """All of them.

        Raises:
            InputError: for an interval, which has no end of them.
        """
        from optuna.distributions import CategoricalDistribution

        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        step = getattr(found, "step", None)
        if step is None:
            raise InputError(f"{self.key}: sampler=grid needs values: a choice, or a range with a step")
        count = round((found.high - found.low) / step) + 1  # type: ignore[attr-defined]
        return [decimal_step(found.low, step, place) for place in range(count)]  # type: ignore[attr-defined]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it has a value beside these of the axes before it."""
        return self.condition is None or str(values.get(self.condition[0])) == self.condition[1]


def decimal_step(start: float, step: float, times: int) -> float:
    """``start + times * step`` as a person reckons it: 0.1 and twice 0.1 are 0.3, not 0.30000000000000004."""
    found = Decimal(repr(start)) + times * Decimal(repr(step))
    return int(found) if isinstance(start, int) else float(found)


def suggested(trial: Trial, axes: Sequence[Dimension]) -> list[str]:
    """The overrides of a trial, in the order of the axes; the same each time that it is asked."""
    values: dict[str, Any] = {}
    overrides = []
    for axis in axes:
        if axis.holds(values):
            values[axis.key] = _suggested(trial, axis)
            overrides.append(axis.override(values[axis.key]))
    return overrides


def _suggested(trial: Trial, axis: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = axis.distribution
    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(axis.key, found.choices)
    if isinstance(found, IntDistribution):
        return trial.suggest_int(axis.key, found.low, found.high, step=found.step, log=found.log)
    assert isinstance(found, FloatDistribution)
    return trial.suggest_float(axis.key, found.low, found.high, step=found.step, log=found.log)


def grid_points(axes: Sequence[Dimension]) -> list[dict[str, Any]]:
    """The grid: every combination of values, each once, the last axis fastest.

    Raises:
        InputError: for an axis without end of values.
    """
    found: list[dict[str, Any]] = [{}]
    for axis in axes:
        every = axis.values()
        found = [
            point | ({axis.key: value} if axis.holds(point) else {})
            for point, value in product(found, every)
            if axis.holds(point) or value == every[0]
        ]
    return found


def boundary_trials(axes: Sequence[Dimension]) -> list[list[str]]:
    """Overrides of few trials, in which every end of every axis occurs; a condition is made true for its axis."""
    found = []
    for axis in axes:
        fixed = {axis.condition[0]: axis.condition[1]} if axis.condition else {}
        for end in axis.ends():
            values = {other.key: other.ends()[0] for other in axes if other.condition is None} | fixed | {axis.key: end}
            by_key = {other.key: other for other in axes}
            found.append([by_key[key].override(value) for key, value in values.items()])
    return found


class GridSampler(BaseSampler):
    """A trial's number is its place in the grid.

    Args:
        axes: Of the search; each with finitely many values.
    """

    def __init__(self, axes: Sequence[Dimension]) -> None:
        self.points = grid_points(axes)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What the trial's point has there."""
        return self.points[trial.number][param_name]
