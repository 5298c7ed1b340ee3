"""A sampler for Optuna that visits every point of a grid; a module of its own, since its base class imports Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from afqmc.sweeps.search_space import Dimension, grid_points

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class GridSampler(BaseSampler):
    """Samples the grid point whose index is the trial's number.

    Args:
        dimensions: The dimensions of the search; none may be continuous.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.points = grid_points(dimensions)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: no parameters are sampled jointly."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no values: no parameters are sampled jointly."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parameter's value at the trial's grid point."""
        return self.points[trial.number][param_name]
