"""The model: an encoder, a pooled vector, dropout and one linear layer to a logit a class."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from afqmc.errors import InputError
from afqmc.model.config import Pooling
from afqmc.model.packing import PACKED, can_pack, encode_packed


def pool(states: Tensor, first: Tensor | None, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a pair, padding left out.

    Args:
        states: Last hidden states (B, T, H).
        first: Hidden states after the first layer (B, T, H), for ``first_last_mean``.
        mask: 1 where there is a token (B, T).
        pooling: Any but ``pooler``.

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
        self.padding_free = False  # compute no padding
        self.wide_mask = False  # hand the encoder a mask (B, 1, 1, T), which it does not look into: no wait for a GPU
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    @property
    def encoder(self) -> PreTrainedModel:
        """The module under the encoder's own prefix."""
        return self.get_submodule(self.prefix)  # type: ignore[return-value]

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits (B, num_labels) of a batch from a tokenizer: ``input_ids`` (B, T), ``attention_mask`` (B, T), ..."""
        mask, both = inputs["attention_mask"], self.pooling is Pooling.first_last_mean
        if self.padding_free:
            last, first = encode_packed(self.encoder, inputs, both)
            pooled = self.encoder.get_submodule("pooler")(last) if self.pooling is Pooling.pooler else None
        else:
            seen = mask[:, None, None, :].bool() if self.wide_mask else mask
            output = self.encoder(**{**inputs, "attention_mask": seen}, output_hidden_states=both)
            last, first = output.last_hidden_state, output.hidden_states[1] if both else None
            pooled = output.pooler_output if self.pooling is Pooling.pooler else None
        vector = pool(last, first, mask, self.pooling) if pooled is None else pooled
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


def use_packing(model: PairClassifier) -> None:
    """Make a classifier compute no padding, after trying on a few rows that it then gives the same.

    Raises:
        InputError: for an encoder that does not keep packed rows apart.
    """
    refusal = f"trainer.padding_free=true: not for a {model.encoder.config.model_type}; BERT and its kin have it"
    if not can_pack(model.encoder):
        raise InputError(refusal)
    mask = torch.arange(8) < torch.tensor([[3], [8], [5]])
    tokens = torch.randint(model.encoder.config.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
    rows = {"input_ids": tokens, "attention_mask": mask.long()}
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(**rows)
        model.encoder.set_attn_implementation(PACKED)
        model.padding_free = True
        try:
            found = model(**rows)
        except (AssertionError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"{refusal} ({str(error) or type(error).__name__})") from error
    model.train(training)
    if not torch.allclose(found, expected, atol=1e-4):
        raise InputError(f"{refusal} (packed rows differ by {(found - expected).abs().max().item():.1e})")


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
