"""afqmc with one optimisation disabled, to measure what it gains."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.clock import Clock
from benchmarks.contestants import afqmc_run
from benchmarks.work import Work


def _disable_attention() -> None:
    from torch import nn

    from afqmc.models import cpu_kernels
    from afqmc.training import device

    def use_dropout_only(model: nn.Module, fast_dropout: bool) -> None:
        for module in [module for module in model.modules() if type(module) is nn.Dropout]:
            module.__class__ = cpu_kernels.FastDropout

    device.use_fast_cpu_kernels = use_dropout_only


def _disable_allocator() -> None:
    from afqmc.utils import process

    process.tune_malloc = lambda: None


def _disable_sleeping() -> None:
    os.environ["OMP_WAIT_POLICY"] = "active"


WITHOUT: dict[str, list[str] | Callable[[], None]] = {
    "bucketing": ["dataset.batching=random"],
    "bf16": ["trainer.mixed_precision=no"],
    "fused": ["optimizer.fused=false"],
    "dropout": ["performance.fast_cpu_dropout=false"],
    "skipping": ["performance.skip_unused_tokens=false"],
    "attention": _disable_attention,
    "allocator": _disable_allocator,
    "sleeping": _disable_sleeping,
}


class Without:
    """A contestant. The optimisation is disabled by an override, or its code is replaced by PyTorch's."""

    def __init__(self, name: str) -> None:
        self.disabled = WITHOUT[name]

    def _disable(self) -> list[str]:
        """Disable the optimisation, and return the overrides that this takes."""
        if isinstance(self.disabled, list):
            return self.disabled
        self.disabled()
        return []

    def train(self, work: Work, clock: Clock) -> float:
        """Train as afqmc."""
        return afqmc_run.train(work, clock, *self._disable())

    def evaluate(self, work: Work, clock: Clock) -> float:
        """Evaluate as afqmc."""
        return afqmc_run.evaluate(work, clock, *self._disable())
