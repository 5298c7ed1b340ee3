"""AWP: adversarial weight perturbation (Wu et al. 2020, arXiv:2004.05884)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from afqmc.training.callbacks.adversarial import AdversarialTraining, check_strength
from afqmc.training.callbacks.base import StepView


class Awp(AdversarialTraining):
    """Takes the gradients of each step at the weights w + v, where v increases the loss of the batch most.

    ``v = gamma |w| g / |g|`` for each matrix w with gradient g (equation 10 of the paper with one step, at its bound
    ``|v| <= gamma |w|``, equation 8). As in the paper, these gradients replace those at w (equation 12), and as in its
    code, only weights with two or more dimensions are perturbed. Unlike in the paper, the inputs are not perturbed, and
    the optimizer steps from w, not from w + v. v is that of the whole batch, over all microbatches and processes. w is
    restored bit for bit.

    Args:
        gamma: Size of v relative to w. 0 switches the callback off.
        first_epoch: Epochs without the method, at the start; may be a fraction.

    Raises:
        ValueError: for an argument out of range.
    """

    conflicts = ("callbacks.fgm", "callbacks.pgd", "distributed.strategy=fsdp")

    def __init__(self, gamma: float = 0.005, first_epoch: float = 0.0) -> None:
        super().__init__(first_epoch)
        check_strength("gamma", gamma)
        self.gamma = gamma
        self.relative_norm: Tensor | float = 0.0

    @property
    def is_off(self) -> bool:
        """Whether v is 0."""
        return self.gamma == 0

    def on_before_optimizer_step(self, step: StepView) -> None:
        """Replace the gradients by those at w + v."""
        if not self.has_begun:
            return
        saved: list[tuple[Tensor, Tensor]] = []
        norms = []  # of v and w
        try:
            with torch.no_grad():
                for parameter in step.model.parameters():
                    if parameter.grad is not None and parameter.ndim > 1:
                        v = self._perturbation(parameter, parameter.grad)
                        norms.append(torch.stack([torch.linalg.vector_norm(v), torch.linalg.vector_norm(parameter)]))
                        saved.append((parameter, parameter.clone()))
                        parameter.add_(v)
            step.optimizer.zero_grad(set_to_none=True)
            step.repeat_backward()
        finally:
            with torch.no_grad():
                for perturbed, w in saved:
                    perturbed.copy_(w)
        norm, reference = torch.stack(norms).norm(dim=0)
        self.relative_norm = norm / reference

    def _perturbation(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return v; 0 for a gradient that is 0, NaN or infinite (fp16)."""
        norm = torch.linalg.vector_norm(gradient)
        scale = self.gamma * torch.linalg.vector_norm(parameter) / norm
        return torch.where(norm.isfinite() & (norm > 0), scale * gradient, 0.0)

    def report(self) -> dict[str, float]:
        """Return the norm of the last v relative to that of w, over all matrices."""
        return {"relative_norm": float(self.relative_norm)}

    def state_dict(self) -> dict[str, Any]:
        """Return what is reported."""
        return self.report()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.relative_norm = state["relative_norm"]
