"""Cross-entropy over the classes, with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward
from afqmc.utils.fields import check_number

_LARGEST = 3.4e38  # of float32


class CrossEntropy:
    """Cross-entropy, averaged over the batch as ``torch.nn.CrossEntropyLoss`` does it.

    Args:
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        class_weights: None, ``balanced`` (n / (C * count) per class, as in scikit-learn), or C positive numbers in
            class order. The loss is then the weighted mean.
        label_counts: Training pairs per class, for ``balanced`` and to check the number of weights; empty where
            they are not known yet.
        device: Where the logits are.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_counts: Sequence[int] = (),
        device: torch.device | None = None,
    ) -> None:
        self.label_smoothing = check_number("label_smoothing", label_smoothing, ge=0, lt=1)
        weights = balanced_weights(label_counts) or None if class_weights == "balanced" else class_weights
        check_class_weights(weights, len(label_counts) or None)
        self.class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)

    def normalizer(self, batch: Batch) -> Tensor | float:
        """Return the number of pairs, or the sum of their weights."""
        assert batch.labels is not None
        return len(batch.labels) if self.class_weights is None else self.class_weights[batch.labels].sum()

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the summed cross-entropy, computed in float32."""
        assert microbatch.labels is not None
        return self.sum_cross_entropy(model(**microbatch.inputs), microbatch.labels)

    def sum_cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the summed cross-entropy of logits (B, C) and labels (B,), computed in float32."""
        return F.cross_entropy(
            logits.float(), labels, weight=self.class_weights, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def sum_weighted(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of one value per pair (B,), each times the weight of its class."""
        return values.sum() if self.class_weights is None else (values * self.class_weights[labels]).sum()


def balanced_weights(label_counts: Sequence[int]) -> list[float]:
    """Return ``n / (C * count)`` for each class, as scikit-learn's ``balanced``."""
    return [sum(label_counts) / (len(label_counts) * max(count, 1)) for count in label_counts]


def check_class_weights(weights: object, num_labels: int | None = None) -> None:
    """Check that ``weights`` is None or one positive, finite number per class.

    Raises:
        ValueError: naming the value and what is allowed.
    """
    if weights is None:
        return
    numbers = isinstance(weights, list | tuple) and all(
        isinstance(weight, int | float) and 0 < weight < _LARGEST for weight in weights
    )
    if not numbers or (num_labels is not None and len(weights) != num_labels):  # type: ignore[arg-type]
        count = f"{num_labels} " if num_labels else ""
        raise ValueError(
            f"class_weights={weights}: must be null, balanced, or a list of {count}positive, finite numbers"
        )
