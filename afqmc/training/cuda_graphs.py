"""A whole training step as a CUDA graph, one for each shape of batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from afqmc.data.batching import Batch
from afqmc.training.config import NonFinite, TrainerConfig
from afqmc.training.device import Choice
from afqmc.training.step import Step
from afqmc.utils.errors import InputError

WIDTHS = 8  # rows are padded to a multiple of this, so that a data set has few shapes


def check_graphs(config: TrainerConfig, choice: Choice) -> None:
    """Hold ``trainer.cuda_graphs`` to what it can do.

    Raises:
        InputError: naming the key that is in its way.
    """
    if not config.cuda_graphs:
        return
    hindrances = {
        f"trainer.device={choice.device}; it needs cuda": choice.device != "cuda",
        "trainer.mixed_precision=fp16, whose scaler decides on the host": choice.precision == "fp16",
        "trainer.gradient_accumulation_steps > 1": config.gradient_accumulation_steps > 1,
        "trainer.padding_free=true": config.padding_free,
        "trainer.compile=true": config.compile,
        "trainer.auto_batch=true": config.auto_batch,
        f"trainer.on_nonfinite={config.on_nonfinite.value}": config.on_nonfinite is not NonFinite.stop,
    }
    for hindrance, there in hindrances.items():
        if there:
            raise InputError(f"trainer.cuda_graphs=true: not with {hindrance}")


def check_capturable(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose step cannot be part of a graph.

    Raises:
        InputError: naming one that can.
    """
    for group in optimizer.param_groups:
        if not group.get("fused") or "capturable" not in group:
            raise InputError("trainer.cuda_graphs=true: needs a fused optimizer, such as optimizer=adamw")


def make_capturable(optimizer: Optimizer, device: torch.device) -> None:
    """Let a fused optimizer's step be captured: its learning rate becomes a tensor that the schedule writes into.

    Raises:
        InputError: for an optimizer that cannot be.
    """
    check_capturable(optimizer)
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)


@dataclass(frozen=True)
class _Captured:
    """A graph, the tensors it reads, and those it writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor
    norm: Tensor | None


class GraphedStep(Step):
    """Replays forward, backward, clipping and optimizer as one launch, where the shape of the batch was met before.

    NOT YET RUN ON A GPU, and off by default (``trainer.cuda_graphs``): no speed is claimed. ``Step`` is its reference,
    and takes the step where a shape is new: capturing needs what a first run sets up. Dropout draws from CUDA's own
    generator, whose offset a replay moves on; the learning rate is a tensor that the schedule writes into between
    replays; a loss that is not finite stops the optimizer on the device (``Guard``). All graphs share one memory pool:
    only one runs at a time.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        assert self.guard.deferred, "a captured step cannot wait for the host"
        self._met: set[tuple[int, int]] = set()
        self._graphs: dict[tuple[int, int], _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._number = torch.zeros((), device=self.accelerator.device)

    def __call__(self, batch: Batch, number: int) -> tuple[Tensor, Tensor | None]:
        """Step ``number``, as ``Step`` takes it."""
        shape = (len(batch), batch.places // len(batch))
        if shape not in self._met:
            self._met.add(shape)
            return super().__call__(batch, number)
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(batch)
        captured = self._graphs[shape]
        for name, tensor in batch.inputs.items():
            captured.batch.inputs[name].copy_(tensor)
        assert captured.batch.labels is not None
        assert batch.labels is not None
        captured.batch.labels.copy_(batch.labels)
        self._number.fill_(number)
        captured.graph.replay()
        self.scheduler.step()
        return captured.loss.clone(), None if captured.norm is None else captured.norm.clone()

    def _capture(self, batch: Batch) -> _Captured:
        """Record a step without taking it."""
        assert batch.labels is not None
        inputs = {name: tensor.clone() for name, tensor in batch.inputs.items()}
        static = Batch(inputs, batch.labels.clone(), batch.ids, batch.tokens)
        self.optimizer.zero_grad(set_to_none=True)  # so that the graph writes gradients instead of adding to them
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss, norm = self.backward(static, self._number)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return _Captured(graph, static, loss, norm)
