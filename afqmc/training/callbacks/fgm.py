"""FGM: adversarial training on word embeddings (Miyato et al. 2017, arXiv:1605.07725)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from afqmc.training.callbacks.adversarial import EmbeddingAttack, unit
from afqmc.training.callbacks.base import StepView


class Fgm(EmbeddingAttack):
    """Adds the loss at the word embeddings s + r, with ``r = epsilon g / |g|`` and g the gradient of the loss at s.

    r is the perturbation of equation 5 of the paper, and the loss is that of equation 6, added to the clean one with
    weight 1. Unlike the paper, the embeddings are not normalized, since they are those of a pretrained model. The
    implementations in wide use for BERT perturb the embedding matrix, with one norm over the whole batch; here, each
    pair has its own r, as in the paper.

    Args:
        epsilon: L2 norm of a pair's perturbation, in units of the embeddings. 0 switches the callback off.
        first_epoch: Epochs without the method, at the start; may be a fraction.

    Raises:
        ValueError: for an argument out of range.
    """

    conflicts = (*EmbeddingAttack.conflicts, "callbacks.pgd", "callbacks.awp")

    def __init__(self, epsilon: float = 1.0, first_epoch: float = 0.0) -> None:
        super().__init__(epsilon, first_epoch)

    def find_perturbations(self, step: StepView, backward: Callable[[], None]) -> list[Tensor]:
        """Return r."""
        return [self.epsilon * unit(gradient) for gradient in self.gradients()]
