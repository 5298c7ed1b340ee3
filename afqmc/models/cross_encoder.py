"""The model: an encoder, a pooled vector, dropout and one linear layer to a logit a class."""

from __future__ import annotations

import copy
import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from afqmc.models.config import Pooling
from afqmc.models.padding_free import PACKED, can_pack, encode_packed
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

# what configs of transformers call the dropout before the classifier; those further on are the encoder's in general
_HEAD_DROPOUTS = (
    "classifier_dropout", "classifier_dropout_prob", "cls_dropout", "seq_classif_dropout", "hidden_dropout_prob",
    "hidden_dropout", "dropout",
)  # fmt: skip
_FEW_TOKENS = 100  # of a model that is only tried out


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


class CrossEncoder(nn.Module):
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
        self.dropout = nn.Dropout(default_head_dropout(config) if head_dropout is None else head_dropout)
        self.one_segment = getattr(config, "type_vocab_size", None) == 1  # segment 1 would be outside of its embedding
        self.padding_free = False  # compute no padding
        self.use_4d_mask = False  # hand the encoder a mask (B, 1, 1, T), which it does not look into: no wait for a GPU
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
        if self.one_segment:
            inputs.pop("token_type_ids", None)
        if self.padding_free:
            last, first = encode_packed(self.encoder, inputs, both)
            pooled = self.encoder.get_submodule("pooler")(last) if self.pooling is Pooling.pooler else None
        else:
            seen = mask[:, None, None, :].bool() if self.use_4d_mask else mask
            output = self.encoder(**{**inputs, "attention_mask": seen}, output_hidden_states=both)
            last, first = output.last_hidden_state, output.hidden_states[1] if both else None
            pooled = output.pooler_output if self.pooling is Pooling.pooler else None
        vector = pool(last, first, mask, self.pooling) if pooled is None else pooled
        logits: Tensor = self.classifier(self.dropout(vector))
        return logits


def default_head_dropout(config: PreTrainedConfig) -> float:
    """The dropout that the architecture's own sequence classifier has before its last layer."""
    for name in _HEAD_DROPOUTS:
        rate = getattr(config, name, None)
        if isinstance(rate, float | int) and not isinstance(rate, bool):
            return float(rate)
    log.warning("model: %s has no dropout of its own for the head: 0.1 (model.head_dropout sets it)", config.model_type)
    return 0.1


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The bare encoder's class for a config."""
    found: Any = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


def encoder_options(config: PreTrainedConfig, pooling: Pooling) -> dict[str, Any]:
    """Keyword arguments for the encoder: an unused pooler is not built where the architecture allows that."""
    accepts = inspect.signature(encoder_class(config).__init__).parameters
    return {"add_pooling_layer": pooling is Pooling.pooler} if "add_pooling_layer" in accepts else {}


def enable_padding_free(model: CrossEncoder) -> None:
    """Make a classifier compute no padding.

    Raises:
        InputError: for an encoder that does not keep packed rows apart.
    """
    check_padding_free(model.encoder, model.pooling)
    _pack(model)


def _pack(model: CrossEncoder) -> None:
    model.encoder.set_attn_implementation(PACKED)
    model.padding_free = True


def check_padding_free(encoder: PreTrainedModel, pooling: Pooling) -> None:
    """Compare packed with padded rows on two layers of the encoder's architecture, whose weights need not be there.

    Raises:
        InputError: for an encoder that does not keep packed rows apart.
    """
    refusal = f"performance.padding_free=true: not for a {encoder.config.model_type}; BERT and its kin have it"
    if not can_pack(encoder):
        raise InputError(refusal)
    config = _two_layers(encoder.config)
    mask = torch.arange(8) < torch.tensor([[3], [8], [5]])
    tokens = torch.randint(config.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
    rows = {"input_ids": tokens, "attention_mask": mask.long()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        small = type(encoder)(config, **encoder_options(config, pooling))
        model = CrossEncoder(small.float(), 2, pooling, None).eval()
        expected = model(**rows)
        _pack(model)
        try:
            found = model(**rows)
        except (AssertionError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"{refusal} ({str(error) or type(error).__name__})") from error
    if not torch.allclose(found, expected, atol=1e-4):
        raise InputError(f"{refusal} (packed rows differ by {(found - expected).abs().max().item():.1e})")


def _two_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same architecture with the first two layers and a small vocabulary."""
    small, layers = copy.deepcopy(config), config.num_hidden_layers
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == layers:  # a setting of each layer
            setattr(small, key, value[:2])
    small.num_hidden_layers = min(layers, 2)
    small.vocab_size = min(config.vocab_size, max(config.pad_token_id or 0, _FEW_TOKENS) + 1)
    return small


def matches_hf_classifier(model: nn.Module) -> bool:
    """Whether ``AutoModelForSequenceClassification`` computes the same from the same parameters.

    True for BERT and its kin (ERNIE, MegatronBERT, ...) with ``pooling=pooler``: the same parameter names, and a head
    that is dropout and a linear layer on the pooled vector.
    """
    if not isinstance(model, CrossEncoder) or model.pooling is not Pooling.pooler:
        return False
    with torch.device("meta"):
        twin = AutoModelForSequenceClassification.from_config(model.encoder.config)
    return set(twin.state_dict()) == set(model.state_dict())
