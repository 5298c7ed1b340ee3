"""PGD: adversarial training on word embeddings in several steps (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from afqmc.training.callbacks.adversarial import EmbeddingAttack, check_strength, pair_norms, unit
from afqmc.training.callbacks.base import StepView


class Pgd(EmbeddingAttack):
    """Adds the loss at the word embeddings s + r, where r takes several gradient steps within a ball.

    ``r_0 = 0``, and ``r_k`` is ``r_(k-1) + alpha g / |g|``, scaled down to norm epsilon if it is longer, with g the
    gradient of the loss at ``s + r_(k-1)`` (the projected gradient descent of section 2.1 of the paper, with the L2
    norm). The gradients at the last r are added to those at s, and all others are discarded. This is the recipe that is
    in wide use for BERT. The paper starts at a random r and trains on the perturbed loss alone.

    Args:
        epsilon: Largest L2 norm of a pair's perturbation, in units of the embeddings. 0 switches the callback off.
        alpha: Length of a step.
        num_steps: Number of steps; each costs a forward and a backward pass.
        first_epoch: Epochs without the method, at the start; may be a fraction.

    Raises:
        ValueError: for an argument out of range.
    """

    conflicts = (*EmbeddingAttack.conflicts, "callbacks.fgm", "callbacks.awp", "distributed.strategy=fsdp")

    def __init__(self, epsilon: float = 1.0, alpha: float = 0.3, num_steps: int = 3, first_epoch: float = 0.0) -> None:
        super().__init__(epsilon, first_epoch)
        check_strength("alpha", alpha)
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"num_steps={num_steps}: must be a whole number >= 1")
        self.alpha, self.num_steps = alpha, num_steps

    @property
    def is_off(self) -> bool:
        """Whether no perturbation is larger than 0."""
        return self.epsilon == 0 or self.alpha == 0

    def find_perturbations(self, step: StepView, backward: Callable[[], None]) -> list[Tensor]:
        """Return the last r."""
        perturbations = [torch.zeros_like(gradient) for gradient in self.gradients()]
        for index in range(self.num_steps):
            moved = [r + self.alpha * unit(g) for r, g in zip(perturbations, self.gradients(), strict=True)]
            perturbations = [r * (self.epsilon / pair_norms(r)).clamp(max=1) for r in moved]
            if index < self.num_steps - 1:
                self._run_discarded(perturbations, step, backward)
        return perturbations

    def _run_discarded(self, perturbations: list[Tensor], step: StepView, backward: Callable[[], None]) -> None:
        """Run a pass for the gradients with respect to the embeddings; the gradients of the weights do not change."""
        parameters = [*step.model.parameters()]
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            with step.accelerator.no_sync(step.model):
                self.run_perturbed(perturbations, backward)
        finally:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
