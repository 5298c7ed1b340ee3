"""``hydra/sweeper=grid``: run every combination of the given values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from afqmc.config import slug
from afqmc.sweeps.variants import add_variant, check_variants
from hydra_plugins.afqmc_sweeps._sweep_session import Session


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper (``lr=1e-5,2e-5 seed=range(3)``), with a plan, checks before the start, and result tables.

    Args:
        params: Sweep overrides by key, from a file in conf/sweep; those of the command line take precedence.
        variants: Lists of overrides by name. ``sweep.variant`` is swept over the names unless it is typed, and each job
            gets the overrides of its variant.
    """

    def __init__(
        self, params: dict[str, str] | None = None, variants: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.variants = {name: list(overrides) for name, overrides in (variants or {}).items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes; the launcher is created later, with the sweep."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Plan and check the jobs, and launch the remaining ones."""
        assert self.hydra_context is not None
        assert self.config is not None
        with Session.open(self.hydra_context, self.task_function, self.config) as session:
            variants = session.variants(self.variants, arguments)
            axes = session.merge_overrides(self.params, arguments, [*variants])
            check_variants(variants, [axis.get_key_element() for axis in axes])
            swept = tuple(f"{axis.get_key_element()}=" for axis in axes if axis.is_sweep_override())
            combinations = self.split_arguments(axes, None)[0]
            requested = [
                (slug([override for override in job if override.startswith(swept)]), add_variant(job, variants))
                for job in combinations
            ]
            session.launch(session.plan(requested, {"sweeper": "grid", "axes": [axis.input_line for axis in axes]}))
