"""A sequence classifier for poolings that no class of transformers has: an encoder, pooling and one linear layer.

This file is copied beside exported weights, and ``trust_remote_code=True`` runs it. So it imports no other part of this
project.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class PooledConfig(PretrainedConfig):
    """The config of an encoder, and its pooling: cls, mean, max, first_last_avg or pooler_output."""

    model_type = "afqmc_pooled"

    def __init__(self, encoder: dict[str, Any] | None = None, pooling: str = "mean", **kwargs: Any) -> None:
        self.encoder, self.pooling = encoder or {"model_type": "bert"}, pooling
        super().__init__(**kwargs)


class PooledForSequenceClassification(PreTrainedModel):
    """Returns the logits (B, C) of token ids (B, T)."""

    config_class = PooledConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: PooledConfig) -> None:
        super().__init__(config)
        options = dict(config.encoder)
        architecture = CONFIG_MAPPING[options.pop("model_type")](**options)
        self.encoder = AutoModel.from_config(architecture)
        if config.pooling != "pooler_output" and hasattr(self.encoder, "pooler"):
            self.encoder.pooler = None  # it is not used
        self.one_segment = getattr(architecture, "type_vocab_size", None) == 1
        self.classifier = nn.Linear(architecture.hidden_size, config.num_labels or 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Compute the logits, and the cross-entropy if ``labels`` (B,) are given."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        if token_type_ids is not None and not self.one_segment:
            inputs["token_type_ids"] = token_type_ids
        output = self.encoder(**inputs, output_hidden_states=self.config.pooling == "first_last_avg", return_dict=True)
        logits = self.classifier(self._pool(output, mask.unsqueeze(-1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pool(self, output: Any, mask: Tensor) -> Tensor:
        """Reduce the hidden states (B, T, H) to (B, H), without padding; the mask is (B, T, 1)."""
        if self.config.pooling == "pooler_output":
            return output.pooler_output  # type: ignore[no-any-return]
        states: Tensor = output.last_hidden_state
        if self.config.pooling == "cls":
            return states[:, 0]
        if self.config.pooling == "max":
            return states.masked_fill(mask == 0, torch.finfo(states.dtype).min).amax(dim=1)
        if self.config.pooling == "first_last_avg":
            states = (states + output.hidden_states[1]) / 2
        weights = mask.to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
