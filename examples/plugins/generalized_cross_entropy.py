"""A custom objective: a loss that tolerates wrong labels (Zhang & Sabuncu 2018, arXiv:1805.07836)."""

from __future__ import annotations

from torch import Tensor

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward


class GeneralizedCrossEntropy:
    """``(1 - p ** q) / q`` of the probability p of the label (equation 6 of the paper).

    Args:
        q: In (0, 1]; near 0 it is cross-entropy, at 1 the mean absolute error.
    """

    def __init__(self, q: float = 0.7) -> None:
        if not 0 < q <= 1:
            raise ValueError(f"q={q}: must be > 0 and <= 1")
        self.q = q

    def normalizer(self, batch: Batch) -> int:
        """Return the number of pairs in the whole batch."""
        return len(batch)

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the loss summed over the pairs of a microbatch: inputs (B, T), labels (B,)."""
        assert microbatch.labels is not None
        probabilities = model(**microbatch.inputs).float().softmax(dim=-1)  # (B, C)
        of_label = probabilities.gather(1, microbatch.labels[:, None]).squeeze(1)  # (B,)
        return ((1 - of_label**self.q) / self.q).sum()
