"""The objective of masked language modelling."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.data.masking import IGNORED
from afqmc.training.objectives.base import Forward


class MaskedLM:
    """Cross-entropy of the masked tokens, averaged over all masked tokens of the batch (Devlin et al. 2019)."""

    def normalizer(self, batch: Batch) -> Tensor | float:
        """Return the number of masked tokens, at least 1."""
        assert batch.labels is not None
        return (batch.labels != IGNORED).sum().clamp(min=1)

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the summed cross-entropy of the masked tokens, computed in float32."""
        assert microbatch.labels is not None
        is_masked = microbatch.labels != IGNORED
        logits = model(**microbatch.inputs, masked=is_masked)  # (M, V)
        return F.cross_entropy(logits.float(), microbatch.labels[is_masked], reduction="sum")
