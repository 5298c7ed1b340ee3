"""A custom optimizer: the sign of the gradient (Bernstein et al. 2018, arXiv:1802.04434)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class SignSGD(Optimizer):
    """Moves each weight by the learning rate, against the sign of its gradient.

    Args:
        params: Weights, or groups of them; afqmc puts biases and norms into a group without weight decay.
        lr: Learning rate.
        weight_decay: Decoupled, as in AdamW.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-4, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])
