"""The space of a search: parameters with their distributions and conditions, and the grid over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


@dataclass(frozen=True)
class Dimension:
    """One parameter of the search space.

    Attributes:
        key: The key, as in an override.
        distribution: Optuna's distribution; choices are strings, as typed.
        condition: Key and value, as strings, that another parameter must have for this one to be used.
    """

    key: str
    distribution: BaseDistribution
    condition: tuple[str, str] | None = None

    def override(self, value: Any) -> str:
        """Return ``key=value``; floats keep every digit."""
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def bounds(self) -> list[Any]:
        """Return the values that must be checked: all choices, or both ends of a range."""
        from optuna.distributions import CategoricalDistribution

        distribution: Any = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        return [distribution.low, distribution.high]

    def grid(self) -> list[Any]:
        """Return all values.

        Raises:
            InputError: If the distribution is continuous.
        """
        from optuna.distributions import CategoricalDistribution

        distribution: Any = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        step = getattr(distribution, "step", None)
        if step is None:
            raise InputError(f"{self.key}: sampler=grid needs values: a choice, or a range with a step")
        count = round((distribution.high - distribution.low) / step) + 1
        return [decimal_step(distribution.low, step, index) for index in range(count)]

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Whether its condition is met by the values of the dimensions before it."""
        return self.condition is None or str(values.get(self.condition[0])) == self.condition[1]


def decimal_step(start: float, step: float, times: int) -> float:
    """Return ``start + times * step`` in decimal arithmetic: 0.1 and 2 x 0.1 give 0.3, not 0.30000000000000004."""
    value = Decimal(repr(start)) + times * Decimal(repr(step))
    return int(value) if isinstance(start, int) else float(value)


def suggest_overrides(trial: Trial, dimensions: Sequence[Dimension]) -> list[str]:
    """Return the overrides of a trial, in the order of the dimensions; the same at each call."""
    values: dict[str, Any] = {}
    overrides = []
    for dimension in dimensions:
        if dimension.is_active(values):
            values[dimension.key] = _suggest(trial, dimension)
            overrides.append(dimension.override(values[dimension.key]))
    return overrides


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, dist = dimension.key, dimension.distribution
    if isinstance(dist, CategoricalDistribution):
        return trial.suggest_categorical(key, dist.choices)
    if isinstance(dist, IntDistribution):
        return trial.suggest_int(key, dist.low, dist.high, step=dist.step, log=dist.log)
    assert isinstance(dist, FloatDistribution)
    return trial.suggest_float(key, dist.low, dist.high, step=dist.step, log=dist.log)


def grid_points(dimensions: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Return every combination of values once; the last dimension varies fastest.

    Raises:
        InputError: If a dimension is continuous.
    """
    points: list[dict[str, Any]] = [{}]
    for dimension in dimensions:
        values = dimension.grid()
        points = [
            point | ({dimension.key: value} if dimension.is_active(point) else {})
            for point, value in product(points, values)
            if dimension.is_active(point) or value == values[0]
        ]
    return points


def boundary_trials(dimensions: Sequence[Dimension]) -> list[list[str]]:
    """Return the overrides of a few trials that together contain all bounds of all dimensions, with conditions met."""
    by_key = {dimension.key: dimension for dimension in dimensions}
    first_bounds = {dimension.key: dimension.bounds()[0] for dimension in dimensions if dimension.condition is None}
    trials = []
    for dimension in dimensions:
        condition = {dimension.condition[0]: dimension.condition[1]} if dimension.condition else {}
        for bound in dimension.bounds():
            values = first_bounds | condition | {dimension.key: bound}
            trials.append([by_key[key].override(value) for key, value in values.items()])
    return trials
