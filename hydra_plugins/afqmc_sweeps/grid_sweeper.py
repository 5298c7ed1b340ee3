"""``hydra/sweeper=grid``: every combination of the values that are named."""

from __future__ import annotations

from typing import Any, Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from afqmc.config import slug
from hydra_plugins.afqmc_sweeps._sweep_session import Session


class GridSweeper(BasicSweeper):
    """Hydra's own grammar of sweeps (``lr=1e-5,2e-5 seed=range(3)``), with a plan, a check and a record of results.

    Args:
        params: Axes by key, for a search that is prepared in a file; the command line goes before them.
    """

    def __init__(self, params: Optional[dict[str, str]] = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over; the launcher is made when the sweep is known."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Plan, check, launch what is left."""
        assert self.hydra_context is not None
        assert self.config is not None
        with Session.opened(self.hydra_context, self.task_function, self.config) as session:
            axes = session.axes(self.params, arguments)
            varied = tuple(f"{axis.get_key_element()}=" for axis in axes if axis.is_sweep_override())
            combinations = self.split_arguments(axes, None)[0]
            wanted = [(slug([one for one in job if one.startswith(varied)]), job) for job in combinations]
            session.launch(session.plan(wanted, {"sweeper": "grid", "axes": [axis.input_line for axis in axes]}))
