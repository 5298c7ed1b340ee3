"""One optimizer step over a batch: forward, backward, clipping, optimizer, schedule; and what its loss is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from afqmc.data.batching import Batch
from afqmc.training.config import NonFinite, Shard, Strategy, TrainerConfig
from afqmc.training.parallel import norm_of
from afqmc.training.rng import random_state, set_random_state


class Loss:
    """Cross-entropy, mean over the whole batch also when it is worked through in parts.

    With class weights it is the weighted mean, as ``torch.nn.CrossEntropyLoss`` has it.
    """

    def __init__(self, smoothing: float, class_weights: Tensor | None) -> None:
        self.smoothing, self.class_weights = smoothing, class_weights

    def weight_of(self, labels: Tensor) -> Tensor | int:
        """What the sum over a batch is divided by."""
        return len(labels) if self.class_weights is None else self.class_weights[labels].sum()

    def __call__(self, logits: Tensor, labels: Tensor, divisor: Tensor | int) -> Tensor:
        """The part's share of the batch's mean loss."""
        total = F.cross_entropy(
            logits.float(), labels, weight=self.class_weights, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / divisor


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """``n / (classes * count)`` for each class, as scikit-learn's ``balanced``."""
    return [sum(counts) / (len(counts) * max(count, 1)) for count in counts]


class Guard:
    """Keeps a loss that is not finite from reaching the weights.

    On a CPU each loss is looked at before the optimizer takes its step. On another device that would make the host wait
    in each step; there the fused optimizers skip, on the device, every step from the first such loss on, as they do for
    a gradient scaler, and the host learns of it when it next reads the losses: ``first_bad`` is the number of that
    step. fp16 has a scaler of its own, which skips steps for its own reasons, so its losses are looked at. (Deferral
    was tested on a CPU, and not yet run on a GPU.)
    """

    def __init__(self, optimizer: Optimizer, device: torch.device, precision: str, policy: NonFinite) -> None:
        fused = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self.deferred = device.type != "cpu" and fused and precision != "fp16" and policy is NonFinite.stop
        self.optimizer = optimizer
        self.first_bad = torch.zeros((), device=device)

    def bad_step(self) -> int:
        """Where looking was put off: the first step that was not taken, 0 if there is none. The host waits for it."""
        return int(self.first_bad.item()) if self.deferred else 0

    def passes(self, loss: Tensor, step: int) -> bool:
        """Whether the step may be taken as far as the host knows."""
        if not self.deferred:
            return math.isfinite(loss.item())
        fresh = (self.first_bad == 0) & ~torch.isfinite(loss)
        self.first_bad += fresh * step
        self.optimizer.found_inf = (self.first_bad > 0).float()  # type: ignore[attr-defined]
        return True


class NonFiniteLossError(RuntimeError):
    """The loss or the gradients became NaN or infinite; the optimizer did not take that step.

    Attributes:
        step: Which one.
        lr: Its learning rate.
        loss: What it was.
        ids: Of the batch's pairs; empty where they are not known any more.
        split: What the ids belong to: a batch, or dev where its logits are not finite.
    """

    def __init__(
        self, what: str, step: int, lr: float, loss: float, ids: list[int | str], split: str = "batch"
    ) -> None:
        self.step, self.lr, self.loss, self.ids = step, lr, loss, ids
        batch = f"; {split} ids {', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''}" if ids else ""
        super().__init__(f"{what} at step {step} (lr {lr:g}{batch})")


class MemoryShortageError(RuntimeError):
    """The device has too little memory for a batch; the message names what makes one smaller."""


_LESS_STATE = "less is needed with optimizer=adafactor or adamw8bit, or a smaller model"


class Step:
    """Takes one optimizer step a call.

    Args:
        model: On its device, prepared by the accelerator, as is ``optimizer``.
        optimizer: Over the model's parameters.
        scheduler: Stepped once an optimizer step.
        accelerator: Device, precision and gradient synchronisation.
        config: Of the trainer.
        loss: From logits and labels to a scalar.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        accelerator: Accelerator,
        config: TrainerConfig,
        loss: Loss,
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.accelerator, self.config, self.loss = accelerator, config, loss
        self.size = accelerator.num_processes
        self.parts = config.gradient_accumulation_steps
        # summed after the last part; where weights are in shards after each, or whole gradients would be kept till then
        self.sums_once = config.strategy is Strategy.ddp or config.shard is Shard.gradients
        plain = getattr(optimizer, "optimizer", optimizer)  # under Accelerate's wrapping
        place = torch.device("cpu") if config.cpu_offload else accelerator.device  # where the optimizer steps
        self.guard = Guard(plain, place, accelerator.mixed_precision, config.on_nonfinite)

    @property
    def lr(self) -> float:
        """Of the next step; on a device, reading it waits."""
        return float(self.optimizer.param_groups[0]["lr"])

    def __call__(self, batch: Batch, number: int) -> tuple[Tensor, Tensor | None]:
        """Step ``number``, counted from 1: the mean loss, and the gradients' norm where it is limited; both detached.

        Raises:
            NonFiniteLossError: before the optimizer would have used such a loss, where the host looks at each.
            MemoryShortageError: when there is not enough memory, and the batch may not be worked through in more parts.
        """
        loss, norm = self.backward_in_memory(batch, number)
        try:
            self.optimizer.step()
        except RuntimeError as error:  # its state is made in the first step
            if not should_reduce_batch_size(error):
                raise
            raise MemoryShortageError(f"out of memory in the optimizer, at step {number}: {_LESS_STATE}") from error
        if not self.accelerator.optimizer_step_was_skipped:  # fp16 skips one when its gradients overflow
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def skip(self) -> None:
        """A step that is not taken: the schedule moves on all the same."""
        self.scheduler.step()

    def backward_in_memory(self, batch: Batch, number: int) -> tuple[Tensor, Tensor | None]:
        """``backward``, in twice as many parts where the memory does not suffice and ``auto_batch`` allows it."""
        while True:
            randomness = random_state() if self.config.auto_batch else None
            try:
                return self.backward(batch, number)
            except RuntimeError as error:
                self.optimizer.zero_grad(set_to_none=True)
                if not should_reduce_batch_size(error):
                    raise
                if randomness is None or self.parts >= len(batch):
                    raise MemoryShortageError(self._shortage(batch, number)) from error
            set_random_state(randomness)
            self.parts = min(2 * self.parts, len(batch))
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()

    def _shortage(self, batch: Batch, number: int) -> str:
        pairs = -(-len(batch) // self.parts)
        less = "" if self.config.auto_batch else "trainer.auto_batch=true (the same batch, in parts), "
        return (
            f"out of memory at step {number}, with {pairs} pairs of {batch.places // len(batch)} tokens at once; "
            f"less is needed with {less}trainer.gradient_checkpointing=true, a smaller dataset.max_length or batch_size"
        )

    def backward(self, batch: Batch, number: int) -> tuple[Tensor, Tensor | None]:
        """The batch's gradients, limited; its loss, and their norm before."""
        parts = batch.split(self.parts)
        assert batch.labels is not None
        divisor = self.loss.weight_of(batch.labels)
        total = torch.zeros((), device=self.accelerator.device)
        for place, part in enumerate(parts, 1):
            with self.accelerator.no_sync(self.model) if self.sums_once and place < len(parts) else nullcontext():
                share = self._share_of(part, divisor)
                total += self._summed(share.detach())
                if not self.guard.passes(total, number):
                    raise self._refusal("loss is", total, total, batch, number)
                # the engine averages the gradients of all processes, and theirs are parts of a sum
                self.accelerator.backward(share if self.size == 1 else share * self.size)
        if self.config.max_grad_norm is None:
            return total, None
        norm = norm_of(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not self.guard.passes(norm, number) and self.accelerator.mixed_precision != "fp16":
            raise self._refusal("the gradients' norm is", norm, total, batch, number)
        return total, norm

    def _share_of(self, part: Batch, divisor: Tensor | int) -> Tensor:
        """Of the batch's mean loss, what this process's rows of a part make up."""
        own, counts = part.share(self.accelerator.process_index, self.size)
        assert own.labels is not None
        with self.accelerator.autocast() if self.accelerator.is_fsdp2 else nullcontext():  # DDP's model has its own
            logits = self.model(**own.inputs)
        share = self.loss(logits, own.labels, divisor)
        return share if counts else share * 0

    def _summed(self, share: Tensor) -> Tensor:
        """Over all processes, so that each judges the same loss."""
        return share if self.size == 1 else self.accelerator.reduce(share, "sum")

    def _refusal(self, what: str, value: Tensor, loss: Tensor, batch: Batch, number: int) -> NonFiniteLossError:
        return NonFiniteLossError(f"{what} {value.item()}", number, self.lr, float(loss), batch.ids)
