"""Supervised contrastive loss in addition to cross-entropy."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward
from afqmc.training.objectives.variant import CrossEntropyVariant
from afqmc.utils.errors import InputError
from afqmc.utils.fields import check_number


class SupervisedContrastive(CrossEntropyVariant):
    """``(1 - weight) * CE + weight * SCL``: SCL pulls the vectors of pairs with the same label together.

    Gunel et al. 2021, "Supervised Contrastive Learning for Pre-trained Language Model Fine-tuning", arXiv:2011.01403,
    equations 1 and 3. The vectors are the normalised pooled vectors before dropout. SCL compares all pairs of a batch.
    It is their mean, where equation 3 has a sum: the weight then does not depend on the batch size. A pair without
    another of its class in the batch adds 0. The mean of SCL is reported.

    Args:
        weight: In [0, 1); lambda in the paper. 0 is cross-entropy.
        temperature: Greater than 0; tau in the paper.
        label_smoothing: As for ``CrossEntropy``; of CE alone.
        class_weights: As for ``CrossEntropy``; of CE alone.
        label_counts: Training pairs per class.
        device: Where the logits are.

    Raises:
        ValueError: for values outside these ranges.
    """

    needs_whole_batch: ClassVar[bool] = True

    def __init__(
        self,
        weight: float = 0.5,
        temperature: float = 0.3,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights, label_counts, device)
        self.weight = check_number("weight", weight, ge=0, lt=1)
        self.temperature = check_number("temperature", temperature, gt=0)

    @property
    def is_off(self) -> bool:
        """Whether it is cross-entropy."""
        return self.weight == 0

    def check_model(self, model: nn.Module) -> None:
        """Check that the model returns pooled vectors if asked to.

        Raises:
            InputError: if its ``forward`` has no argument ``return_pooled``.
        """
        if not self.is_off and "return_pooled" not in inspect.signature(model.forward).parameters:
            raise InputError(
                f"objective: SupervisedContrastive needs pooled vectors, but {type(model).__name__}.forward has no "
                "argument return_pooled"
            )

    def loss(self, model: Forward, microbatch: Batch, labels: Tensor) -> Tensor:
        """Return the loss summed over the pairs; the microbatch is the whole batch."""
        logits, vectors = model(**microbatch.inputs, return_pooled=True)
        # multi-sample dropout repeats labels and logits, but not vectors
        contrastive = supervised_contrastive_loss(vectors, labels[: len(vectors)], self.temperature)
        self.means.add(len(vectors), contrastive_loss=contrastive.sum())
        # the mean over the pairs, times the normalizer, by which the sum is divided
        mean = contrastive.mean() * self.normalizer(microbatch)
        return (1 - self.weight) * self.sum_cross_entropy(logits, labels) + self.weight * mean


def supervised_contrastive_loss(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the loss of each of B pairs with the others (B,), computed in float32.

    Args:
        vectors: (B, H), of any length.
        labels: (B,).
        temperature: Divides the cosine similarities.
    """
    normalised = F.normalize(vectors.float(), dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarities = normalised @ normalised.T / temperature  # (B, B)
    log_p = similarities.masked_fill(itself, torch.finfo(similarities.dtype).min).log_softmax(dim=1)
    same_class = (labels[:, None] == labels) & ~itself
    return -log_p.masked_fill(~same_class, 0).sum(dim=1) / same_class.sum(dim=1).clamp(min=1)
