"""A custom callback: Gaussian noise on the gradients (Neelakantan et al. 2015, arXiv:1511.06807)."""

from __future__ import annotations

from typing import Any

import torch

from afqmc.training.callbacks.base import Callback, StepView


class GradientNoise(Callback):
    """Adds noise with variance ``eta / (1 + t) ** gamma`` to all gradients of step t (equation 1 of the paper).

    Args:
        eta: Variance at the first step.
        gamma: How fast it decays.
        seed: Of the noise; the YAML file passes the seed of the run.
    """

    conflicts = ("distributed.strategy=fsdp",)  # a process has only a part of each gradient

    def __init__(self, eta: float = 0.01, gamma: float = 0.55, seed: int = 0) -> None:
        if eta <= 0:
            raise ValueError(f"eta={eta}: must be > 0")
        self.eta, self.gamma, self.seed = eta, gamma, seed
        self.steps, self.deviation = 0, 0.0

    def on_before_optimizer_step(self, step: StepView) -> None:
        """Add the noise. With DDP, all processes have the same gradients, and must add the same noise."""
        self.deviation = (self.eta / (1 + self.steps) ** self.gamma) ** 0.5
        generator = torch.Generator(step.accelerator.device).manual_seed((self.seed << 32) + self.steps)
        for parameter in step.model.parameters():
            if parameter.grad is not None:
                noise = torch.empty_like(parameter.grad).normal_(0, self.deviation, generator=generator)
                parameter.grad.add_(noise)
        self.steps += 1

    def report(self) -> dict[str, float]:
        """Return the standard deviation of the last step's noise."""
        return {"deviation": self.deviation}

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps: a resumed run draws the same noise."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.steps = state["steps"]
