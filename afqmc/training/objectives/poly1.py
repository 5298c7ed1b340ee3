"""Poly-1 loss: cross-entropy with another coefficient of its first polynomial term."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward
from afqmc.training.objectives.variant import CrossEntropyVariant
from afqmc.utils.fields import check_number


class Poly1(CrossEntropyVariant):
    """``-log(p_t) + epsilon * (1 - p_t)`` of the probability p_t of the label.

    The loss Poly-1 of Leng et al. 2022, "PolyLoss", arXiv:2204.12511. With label smoothing, both terms are means over
    the smoothed target, as in the paper's code. It reports the mean of ``epsilon * (1 - p_t)``.

    Args:
        epsilon: At least -1; 0 is cross-entropy.
        label_smoothing: As for ``CrossEntropy``.
        class_weights: As for ``CrossEntropy``; they weight both terms.
        label_counts: Training pairs per class.
        device: Where the logits are.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights, label_counts, device)
        self.epsilon = check_number("epsilon", epsilon, ge=-1)

    @property
    def is_off(self) -> bool:
        """Whether it is cross-entropy."""
        return self.epsilon == 0

    def loss(self, model: Forward, microbatch: Batch, labels: Tensor) -> Tensor:
        """Return cross-entropy plus the polynomial term, summed over the pairs."""
        logits = model(**microbatch.inputs).float()  # (B, C)
        p = logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)  # (B,)
        # sum over classes of target * (1 - probability)
        term = 1 - (1 - self.label_smoothing) * p - self.label_smoothing / logits.shape[1]
        self.means.add(len(labels), polynomial_term=self.epsilon * term.sum())
        return self.sum_cross_entropy(logits, labels) + self.epsilon * self.sum_weighted(term, labels)
