"""One optimizer step over a batch: forward, backward, clipping, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from afqmc.data.batching import Batch
from afqmc.training.callbacks.base import Callback, overriding
from afqmc.training.config import DistributedConfig, FsdpSharding, Strategy, TrainerConfig
from afqmc.training.nonfinite import NonFiniteGuard, NonFiniteLossError
from afqmc.training.objectives.base import Forward, Objective
from afqmc.training.parallel import full_norm
from afqmc.training.rng import random_state, set_random_state

_LESS_STATE = "use optimizer=adafactor or adamw8bit, or a smaller model"


class BatchOutOfMemoryError(RuntimeError):
    """The device has too little memory for a batch; the message names what reduces it."""


class TrainStep:
    """Takes one optimizer step per call.

    The loss of a batch is the objective's sum over microbatches and processes, divided by the normalizer of the whole
    batch. It does not depend on how the batch is divided.

    Args:
        model: On its device, prepared by the accelerator, as is ``optimizer``.
        optimizer: Over the model's parameters.
        scheduler: Advanced once per optimizer step.
        accelerator: Device, precision and gradient synchronisation.
        config: The ``trainer`` group.
        distributed: The ``distributed`` group.
        objective: The training loss.
        callbacks: Their hooks ``on_before_forward``, ``on_after_backward``, ``on_before_optimizer_step`` and
            ``on_after_optimizer_step`` are called.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        accelerator: Accelerator,
        config: TrainerConfig,
        distributed: DistributedConfig,
        objective: Objective,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.accelerator, self.config, self.objective = accelerator, config, objective
        # Accelerate wraps the forward pass of a model in autocast, except with FSDP
        self._forward: Forward = self._autocast_forward if accelerator.is_fsdp2 else model
        self.world_size = accelerator.num_processes
        self.num_microbatches = config.gradient_accumulation_steps
        # Gradients are summed over processes once, after the last microbatch. With fully sharded weights they are
        # summed after each microbatch, since waiting would keep the unsharded gradients in memory.
        self.sync_last_only = (
            distributed.strategy is Strategy.ddp or distributed.fsdp_sharding is FsdpSharding.shard_grad_op
        )
        unwrapped = getattr(optimizer, "optimizer", optimizer)  # without Accelerate's wrapper
        optimizer_device = torch.device("cpu") if distributed.fsdp_cpu_offload else accelerator.device
        self.guard = NonFiniteGuard(unwrapped, optimizer_device, accelerator.mixed_precision, config.on_nonfinite)
        self._before_forward = overriding([*callbacks], "on_before_forward")
        self._after_backward = overriding([*callbacks], "on_after_backward")
        self._before_step = overriding([*callbacks], "on_before_optimizer_step")
        self._after_step = overriding([*callbacks], "on_after_optimizer_step")
        self._current: tuple[Batch, int] | None = None  # the batch, in the hooks before the optimizer step

    @property
    def lr(self) -> float:
        """Learning rate of the next step for parameters whose peak rate is ``lr`` of the config.

        On a GPU, reading it may wait for the device.
        """
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Tensor | None]:
        """Take step ``step``, counted from 1.

        Returns:
            The batch's loss, and the norm of its gradients where ``max_grad_norm`` limits it; detached scalars.

        Raises:
            NonFiniteLossError: when the host checks losses (see ``NonFiniteGuard``); before the optimizer steps.
            BatchOutOfMemoryError: when there is not enough memory, and the batch may not be divided further.
        """
        while True:
            random = random_state() if self.config.auto_microbatch else None
            try:
                loss, norm = self.backward(batch, step)
                break
            except RuntimeError as error:
                self._divide_further(error, random, batch, step)
        try:
            self.optimizer.step()
        except RuntimeError as error:  # its state is created in the first step
            if not should_reduce_batch_size(error):
                raise
            raise BatchOutOfMemoryError(f"out of memory in the optimizer, at step {step}: {_LESS_STATE}") from error
        if not self.accelerator.optimizer_step_was_skipped:  # fp16 skips one when its gradients overflow
            self.scheduler.step()
        for callback in self._after_step:
            callback.on_after_optimizer_step(self)
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def skip(self) -> None:
        """Discard the gradients of a step; the schedule still advances."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()

    def _divide_further(self, error: RuntimeError, random: dict[str, Any] | None, batch: Batch, step: int) -> None:
        """Use twice as many microbatches from here on, and restore the random state before the failed attempt.

        Raises:
            BatchOutOfMemoryError: when ``auto_microbatch`` is off, or each microbatch has one pair already.
            RuntimeError: the given error, when it is not about memory.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if not should_reduce_batch_size(error):
            raise error
        if random is None or self.num_microbatches >= len(batch):
            raise BatchOutOfMemoryError(self._out_of_memory(batch, step)) from error
        set_random_state(random)
        self.num_microbatches = min(2 * self.num_microbatches, len(batch))
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()

    def _out_of_memory(self, batch: Batch, step: int) -> str:
        pairs = -(-len(batch) // self.num_microbatches)
        automatic = self.config.auto_microbatch
        smaller = "" if automatic else "trainer.auto_microbatch=true (the same batch in microbatches), "
        return (
            f"out of memory at step {step}, with {pairs} pairs of {batch.padded_tokens // len(batch)} tokens at once; "
            f"use {smaller}trainer.gradient_checkpointing=true, a smaller dataset.max_length or a smaller batch_size"
        )

    def backward(self, batch: Batch, step: int) -> tuple[Tensor, Tensor | None]:
        """Compute the gradients of a batch and clip them; return its loss, and their norm before clipping."""
        total = self._backward_batch(batch, step, with_callbacks=True)
        self._current = batch, step
        for callback in self._before_step:
            callback.on_before_optimizer_step(self)
        self._current = None
        if self.config.max_grad_norm is None:
            return total, None
        norm = full_norm(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not self.guard.allows(norm, step) and self.accelerator.mixed_precision != "fp16":
            raise self._nonfinite("the gradients' norm is", norm, total, batch, step)
        return total, norm

    def repeat_backward(self) -> None:
        """Run forward and backward over the batch again, in a hook before the optimizer step; add to the gradients.

        Raises:
            NonFiniteLossError: if that loss is NaN or infinite.
        """
        assert self._current is not None
        self._backward_batch(*self._current)

    def _backward_batch(self, batch: Batch, step: int, with_callbacks: bool = False) -> Tensor:
        """Add the gradients of a batch; return its loss."""
        microbatches = batch.split(self.num_microbatches)
        normalizer = self.objective.normalizer(batch)
        total = torch.zeros((), device=self.accelerator.device)
        for index, microbatch in enumerate(microbatches, 1):
            defers_sync = self.sync_last_only and index < len(microbatches)
            with self.accelerator.no_sync(self.model) if defers_sync else nullcontext():
                shard, counts = microbatch.shard(self.accelerator.process_index, self.world_size)
                for callback in self._before_forward if with_callbacks else ():
                    callback.on_before_forward(self, shard)
                loss = self._loss(shard, counts, normalizer)
                total += self._sum_over_processes(loss.detach())
                if not self.guard.allows(total, step):
                    raise self._nonfinite("loss is", total, total, batch, step)
                self._accumulate(loss)
                for callback in self._after_backward if with_callbacks else ():
                    again = partial(self._backward_again, shard, counts, normalizer, batch, step)
                    callback.on_after_backward(self, shard, again)
        return total

    def _autocast_forward(self, **inputs: Tensor) -> Tensor:
        with self.accelerator.autocast():
            logits: Tensor = self.model(**inputs)
        return logits

    def _loss(self, shard: Batch, counts: bool, normalizer: Tensor | float) -> Tensor:
        loss = self.objective(self._forward, shard)
        if not isinstance(loss, Tensor) or loss.ndim > 0 or not loss.requires_grad:
            shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"{type(self.objective).__name__}: must return a scalar tensor with gradient, not {shape}")
        loss = loss / normalizer
        return loss if counts else loss * 0  # a process without a pair of its own computes one of another process

    def _accumulate(self, loss: Tensor) -> None:
        # DDP and FSDP average gradients over processes, but the loss of the batch is the sum of the processes' losses
        self.accelerator.backward(loss if self.world_size == 1 else loss * self.world_size)

    def _backward_again(self, shard: Batch, counts: bool, normalizer: Tensor | float, batch: Batch, step: int) -> None:
        loss = self._loss(shard, counts, normalizer)
        total = self._sum_over_processes(loss.detach())
        if not self.guard.allows(total, step):
            raise self._nonfinite("loss of a callback's backward pass is", total, total, batch, step)
        self._accumulate(loss)

    def _sum_over_processes(self, loss: Tensor) -> Tensor:
        return loss if self.world_size == 1 else self.accelerator.reduce(loss, "sum")

    def _nonfinite(self, what: str, value: Tensor, loss: Tensor, batch: Batch, step: int) -> NonFiniteLossError:
        return NonFiniteLossError(f"{what} {value.item()}", step, self.lr, float(loss), batch.ids)
