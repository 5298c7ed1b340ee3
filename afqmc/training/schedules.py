"""Schedules with linear warm-up, with the values of ``transformers.get_*_schedule_with_warmup``.

Importing ``transformers.optimization`` also imports peft, which takes as long as importing NumPy and scikit-learn.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(step: int, num_warmup_steps: int) -> float:
    """Return the factor on the learning rate at a step: 1 after the warm-up."""
    return step / num_warmup_steps if step < num_warmup_steps else 1.0


def linear(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    """Return the factor on the learning rate at a step: after the warm-up it falls linearly to 0."""
    if step < num_warmup_steps:
        return step / num_warmup_steps
    return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))


def cosine(step: int, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5) -> float:
    """Return the factor on the learning rate at a step: it follows a cosine after the warm-up, to 0 by default."""
    if step < num_warmup_steps:
        return step / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * float(num_cycles) * 2.0 * progress)))


def polynomial(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, lr_end: float = 1e-7, power: float = 1.0
) -> LambdaLR:
    """Return the schedule that falls to ``lr_end`` after the warm-up, by the ``power`` of the remaining share of steps.

    Raises:
        ValueError: if ``lr_end`` is not below the optimizer's learning rate.
    """
    lr = optimizer.defaults["lr"]
    if not lr > lr_end:
        raise ValueError(f"lr_end={lr_end}: must be smaller than the learning rate ({lr})")

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        remaining = max(0.0, 1 - (step - num_warmup_steps) / (num_training_steps - num_warmup_steps))
        return float(((lr - lr_end) * remaining**power + lr_end) / lr)

    return LambdaLR(optimizer, factor)
