"""``sampler=grid``: every point once, in order. Optuna's own ends a loop that is not ours, and goes on past the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from afqmc.search.space import Axis, points

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class GridSampler(BaseSampler):
    """A trial's number is its place in the grid.

    Args:
        axes: Of the search; each with finitely many values.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.points = points(axes)

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
