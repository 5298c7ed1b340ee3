"""Distillation: learn from the labels and from the probabilities of a teacher (Hinton, Vinyals and Dean 2015)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.training.objectives.base import Forward


class Distillation:
    """The weighted mean of the cross-entropy with the labels and of the divergence from a teacher.

    Per pair, with the student's logits z, the teacher's logits v and the label y:

        (1 - weight) * CE(y, softmax(z)) + weight * T^2 * KL(softmax(v / T) || softmax(z / T))

    The softmax with temperature T is equation (1) of "Distilling the Knowledge in a Neural Network" (arXiv:1503.02531).
    Section 2 explains the factor T^2: gradients of the second term scale as 1 / T^2. KL differs from the paper's
    cross-entropy by the teacher's entropy, which has no gradient. Pairs without a label have only the second term. The
    loss is averaged over all pairs of a batch.

    Args:
        temperature: T; higher values make the teacher's probabilities more equal.
        weight: Share of the teacher, in [0, 1]; with 0 the loss is that of ``CrossEntropy``.

    Raises:
        ValueError: for values outside these ranges.
    """

    uses_teacher = True  # a run without dataset.teacher is refused

    def __init__(self, temperature: float = 2.0, weight: float = 0.5) -> None:
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature}: must be a number > 0")
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise ValueError(f"weight={weight}: must be >= 0 and <= 1")
        self.temperature, self.weight = float(temperature), float(weight)
        self._divergence, self._pairs = torch.zeros(()), 0  # since the last report

    def normalizer(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return len(batch)

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the loss summed over the pairs, computed in float32."""
        assert microbatch.labels is not None
        assert microbatch.teacher_logits is not None
        logits = model(**microbatch.inputs).float()
        cross_entropy = F.cross_entropy(logits, microbatch.labels, reduction="sum")
        student, teacher = (
            F.log_softmax(values / self.temperature, dim=1) for values in (logits, microbatch.teacher_logits)
        )
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
        self._divergence = self._divergence.to(logits.device) + divergence.detach()
        self._pairs += len(microbatch)
        if self.weight == 0:
            return cross_entropy
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * divergence

    def report(self) -> dict[str, float]:
        """Return the mean divergence from the teacher since the last report, over the pairs of this process."""
        values = {"kl_divergence": float(self._divergence) / self._pairs} if self._pairs else {}
        self._divergence, self._pairs = torch.zeros(()), 0
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the next report."""
        return {"divergence": self._divergence.cpu(), "pairs": self._pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums of the next report."""
        self._divergence, self._pairs = state["divergence"], state["pairs"]
