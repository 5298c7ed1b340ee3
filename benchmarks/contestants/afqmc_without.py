"""Ours less one of the things that make it quick: what each of them buys."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.clock import Clock
from benchmarks.contestants import afqmc_run
from benchmarks.work import Work


def _attention() -> None:
    from torch import nn

    from afqmc.models import cpu_kernels as cpu
    from afqmc.training import device as hardware

    def dropout_alone(model: nn.Module, fast_dropout: bool) -> None:
        for module in [module for module in model.modules() if type(module) is nn.Dropout]:
            module.__class__ = cpu.FastDropout

    hardware.use_fast_cpu_kernels = dropout_alone


def _allocator() -> None:
    from afqmc.utils import process

    process.tune_malloc = lambda: None


def _sleeping() -> None:
    os.environ["OMP_WAIT_POLICY"] = "active"


WITHOUT: dict[str, list[str] | Callable[[], None]] = {
    "bucketing": ["dataset.batching=random"],
    "bf16": ["trainer.mixed_precision=no"],
    "fused": ["optimizer.fused=false"],
    "dropout": ["performance.fast_cpu_dropout=false"],
    "attention": _attention,
    "allocator": _allocator,
    "sleeping": _sleeping,
}


class Without:
    """A contestant: what is left out is an override, or a part replaced by what PyTorch and transformers have."""

    def __init__(self, name: str) -> None:
        self.left_out = WITHOUT[name]

    def _leave_out(self) -> list[str]:
        if isinstance(self.left_out, list):
            return self.left_out
        self.left_out()
        return []

    def train(self, work: Work, clock: Clock) -> float:
        """As ours."""
        return afqmc_run.train(work, clock, *self._leave_out())

    def evaluate(self, work: Work, clock: Clock) -> float:
        """As ours."""
        return afqmc_run.evaluate(work, clock, *self._leave_out())
