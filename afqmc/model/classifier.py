"""The model: an encoder, a pooled vector, dropout and one linear layer to a logit a class."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from afqmc.model.config import Pooling


def pool(states: Tensor, mask: Tensor, pooling: Pooling, first: Tensor | None = None) -> Tensor:
    """One vector a pair, padding left out.

    Args:
        states: Last hidden states (B, T, H).
        mask: 1 where there is a token (B, T).
        pooling: Any but ``pooler``.
        first: Hidden states after the first layer (B, T, H), for ``first_last_mean``.

    Returns:
        (B, H).
    """
    if pooling is Pooling.cls:
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    if pooling is Pooling.max:
        return states.masked_fill(weights == 0, torch.finfo(states.dtype).min).amax(dim=1)
    if pooling is Pooling.first_last_mean:
        assert first is not None
        states = (states + first) / 2
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


class PairClassifier(nn.Module):
    """The tutorial's model, and its kin: hidden states, pooling, dropout, one linear layer.

    Parameters are named as in ``transformers``' sequence classifiers: the encoder under its own prefix (``bert.``),
    the head ``classifier.``. Where the pooling is ``pooler`` that *is* the standard head of BERT and its kin.
    """

    def __init__(self, encoder: PreTrainedModel, num_labels: int, pooling: Pooling, head_dropout: float | None) -> None:
        super().__init__()
        config = encoder.config
        self.pooling = pooling
        self.prefix = encoder.base_model_prefix
        self.add_module(self.prefix, encoder)
        rate = getattr(config, "hidden_dropout_prob", 0.1) if head_dropout is None else head_dropout
        self.dropout = nn.Dropout(rate)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    @property
    def encoder(self) -> PreTrainedModel:
        """The module under the encoder's own prefix."""
        return self.get_submodule(self.prefix)  # type: ignore[return-value]

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits (B, num_labels) of a batch from a tokenizer: ``input_ids`` (B, T), ``attention_mask`` (B, T), ..."""
        layers = self.pooling is Pooling.first_last_mean
        output = self.encoder(**inputs, output_hidden_states=layers)
        if self.pooling is Pooling.pooler:
            vector = output.pooler_output
        else:
            first = output.hidden_states[1] if layers else None
            vector = pool(output.last_hidden_state, inputs["attention_mask"], self.pooling, first)
        logits: Tensor = self.classifier(self.dropout(vector))
        return logits


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The bare encoder's class for a config."""
    found: Any = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


def encoder_options(config: PreTrainedConfig, pooling: Pooling) -> dict[str, Any]:
    """Keyword arguments for the encoder: an unused pooler is not built where the architecture allows that."""
    accepts = inspect.signature(encoder_class(config).__init__).parameters
    return {"add_pooling_layer": pooling is Pooling.pooler} if "add_pooling_layer" in accepts else {}


def is_standard(model: nn.Module) -> bool:
    """Whether ``AutoModelForSequenceClassification`` computes the same from the same parameters.

    True for BERT and its kin (ERNIE, MegatronBERT, ...) with ``pooling=pooler``: the same parameter names, and a head
    that is dropout and a linear layer on the pooled vector.
    """
    if not isinstance(model, PairClassifier) or model.pooling is not Pooling.pooler:
        return False
    with torch.device("meta"):
        twin = AutoModelForSequenceClassification.from_config(model.encoder.config)
    return set(twin.state_dict()) == set(model.state_dict())
