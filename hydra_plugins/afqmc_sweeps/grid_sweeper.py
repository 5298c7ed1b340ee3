"""``hydra/sweeper=grid``: run every combination of the given values."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from afqmc.config import slug
from hydra_plugins.afqmc_sweeps._sweep_session import Session


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper (``lr=1e-5,2e-5 seed=range(3)``), with a plan, checks before the start, and result tables.

    Args:
        params: Sweep overrides by key, from a file in conf/sweep; those of the command line take precedence.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes; the launcher is created later, with the sweep."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Plan and check the jobs, and launch the remaining ones."""
        assert self.hydra_context is not None
        assert self.config is not None
        with Session.open(self.hydra_context, self.task_function, self.config) as session:
            axes = session.merge_overrides(self.params, arguments)
            swept = tuple(f"{axis.get_key_element()}=" for axis in axes if axis.is_sweep_override())
            combinations = self.split_arguments(axes, None)[0]
            requested = [
                (slug([override for override in job if override.startswith(swept)]), job) for job in combinations
            ]
            session.launch(session.plan(requested, {"sweeper": "grid", "axes": [axis.input_line for axis in axes]}))
