"""R-Drop: two forward passes with different dropout, whose predictions are made similar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.mixout import MixoutLinear
from afqmc.training.objectives.base import Forward
from afqmc.training.objectives.variant import CrossEntropyVariant
from afqmc.utils.errors import InputError
from afqmc.utils.fields import check_number


class RDrop(CrossEntropyVariant):
    """``-log P1 - log P2 + alpha / 2 * (KL(P1 || P2) + KL(P2 || P1))`` per pair, of two passes with different dropout.

    Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", arXiv:2106.14448, equation 4. As there, the
    two cross-entropies are summed and not averaged, so the loss is about twice that of cross-entropy. As in the paper,
    both passes are one pass over a batch that has each pair twice, which needs the memory of a batch of 2 B pairs. It
    reports the mean of ``(KL(P1 || P2) + KL(P2 || P1)) / 2``.

    Args:
        alpha: At least 0; 0 is cross-entropy, with one pass.
        label_smoothing: As for ``CrossEntropy``; of both cross-entropies.
        class_weights: As for ``CrossEntropy``; they weight all terms of a pair.
        label_counts: Training pairs per class.
        device: Where the logits are.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights, label_counts, device)
        self.alpha = check_number("alpha", alpha, ge=0)

    @property
    def is_off(self) -> bool:
        """Whether it is cross-entropy."""
        return self.alpha == 0

    def check_model(self, model: nn.Module) -> None:
        """Check that the two passes can differ. Whether a custom model has dropout is not known.

        Raises:
            InputError: if the model has no dropout, or has mixout.
        """
        if not self.is_off and any(isinstance(module, MixoutLinear) for module in model.modules()):
            raise InputError("objective: R-Drop does not work with model.mixout, which has one mask for both passes")
        has_dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
        if not self.is_off and isinstance(model, CrossEncoder) and not has_dropout:
            raise InputError(
                "objective: R-Drop compares two passes with different dropout, but this model has no dropout"
            )

    def loss(self, model: Forward, microbatch: Batch, labels: Tensor) -> Tensor:
        """Return the loss of both passes, summed over the pairs."""
        logits = model(**{name: values.repeat_interleave(2, dim=0) for name, values in microbatch.inputs.items()})
        log_p, log_q = logits.float().log_softmax(dim=-1).view(len(labels), 2, -1).unbind(dim=1)  # (B, C) each
        kl_p = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)  # KL(P1 || P2), (B,)
        kl_q = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1)
        divergence = (kl_p + kl_q) / 2
        self.means.add(len(labels), kl_divergence=divergence.sum())
        cross_entropy = self.sum_cross_entropy(logits, labels.repeat_interleave(2))
        return cross_entropy + self.alpha * self.sum_weighted(divergence, labels)
