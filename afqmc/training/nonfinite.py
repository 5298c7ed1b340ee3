"""Losses and gradients that are NaN or infinite: the error, and the guard that keeps them from the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim import Optimizer

from afqmc.training.config import NonFinite


class NonFiniteLossError(RuntimeError):
    """The loss or the gradients became NaN or infinite; the optimizer did not take that step.

    Attributes:
        step: The optimizer step, counted from 1.
        lr: Its learning rate.
        loss: The loss.
        ids: Ids of the pairs concerned; empty where they are no longer known.
        split: What the ids belong to: ``batch``, or ``dev`` where logits of an evaluation are not finite.
    """

    def __init__(
        self, what: str, step: int, lr: float, loss: float, ids: list[int | str], split: str = "batch"
    ) -> None:
        self.step, self.lr, self.loss, self.ids = step, lr, loss, ids
        batch = f"; {split} ids {', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''}" if ids else ""
        super().__init__(f"{what} at step {step} (lr {lr:g}{batch})")


class NonFiniteGuard:
    """Keeps a loss that is not finite from reaching the weights.

    On a CPU, the host checks each loss before the optimizer steps. On a GPU, the host would have to wait in each step.
    There, the device does the check: fused optimizers skip every step from the first such loss on, by the mechanism of
    gradient scalers, and the host learns of it when it next reads the losses. With fp16, which has a scaler of its own
    that skips steps for other reasons, the host checks each loss. (Tested on a CPU; not yet run on a GPU.)

    Attributes:
        on_device: Whether the device does the check.
        first_bad: With ``on_device``, the first step that was not taken, 0 if there is none.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device, precision: str, policy: NonFinite) -> None:
        fused = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self.on_device = device.type != "cpu" and fused and precision != "fp16" and policy is NonFinite.stop
        self.optimizer = optimizer
        self.first_bad = torch.zeros((), device=device)

    def first_bad_step(self) -> int:
        """Return the first step that the device did not take, 0 if there is none. The host waits for the device."""
        return int(self.first_bad.item()) if self.on_device else 0

    def allows(self, loss: Tensor, step: int) -> bool:
        """Return whether the step may be taken, as far as the host knows."""
        if not self.on_device:
            return math.isfinite(loss.item())
        is_first = (self.first_bad == 0) & ~torch.isfinite(loss)
        self.first_bad += is_first * step
        self.optimizer.found_inf = (self.first_bad > 0).float()  # type: ignore[attr-defined]
        return True
