"""Focal loss: less weight for pairs that are already classified well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward
from afqmc.training.objectives.variant import CrossEntropyVariant
from afqmc.utils.fields import check_number


class Focal(CrossEntropyVariant):
    """``-alpha_t * (1 - p_t) ** gamma * log(p_t)`` of the probability p_t of the label.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002, equations 4 and 5. The mean is over the
    pairs: ``alpha`` does not change the divisor. There is no label smoothing, because p_t is that of one label. It
    reports the mean of ``(1 - p_t) ** gamma``.

    Args:
        gamma: At least 0; 0 with ``alpha=None`` is cross-entropy.
        alpha: For two classes: the weight of the second class, in (0, 1); the first has ``1 - alpha``. None: both 1.
        class_weights: As for ``CrossEntropy``; not with ``alpha``.
        label_counts: Training pairs per class.
        device: Where the logits are.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(0.0, class_weights, label_counts, device)
        self.gamma = check_number("gamma", gamma, ge=0)
        self.alphas: Tensor | None = None
        if alpha is not None:
            alpha = check_number("alpha", alpha, gt=0, lt=1)
            if class_weights is not None or len(label_counts) not in (0, 2):
                raise ValueError(f"alpha={alpha}: only for two classes, and not with class_weights")
            self.alphas = torch.tensor([1 - alpha, alpha], device=device)

    @property
    def is_off(self) -> bool:
        """Whether it is cross-entropy."""
        return self.gamma == 0 and self.alphas is None

    def loss(self, model: Forward, microbatch: Batch, labels: Tensor) -> Tensor:
        """Return the focal loss summed over the pairs."""
        log_p = model(**microbatch.inputs).float().log_softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)  # (B,)
        smallest = torch.finfo(log_p.dtype).tiny  # at p = 1, the gradient of the power would be infinite for gamma < 1
        focus = (-log_p.expm1()).clamp(min=smallest) ** self.gamma
        self.means.add(len(labels), focal_weight=focus.sum())
        weights = focus if self.alphas is None else focus * self.alphas[labels]
        return self.sum_weighted(-weights * log_p, labels)
