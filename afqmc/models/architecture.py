"""The encoder's architecture: read or made, changed where it has no weights yet, held to what this project can use."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, BertConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
)

from afqmc.models.config import ModelConfig
from afqmc.models.hub import UNUSABLE, hub_options, loading_error, resolve_model_path
from afqmc.models.padding_free import first_position
from afqmc.utils.errors import InputError, did_you_mean


def build_architecture(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The encoder's config; for a model from scratch with the tokenizer's vocabulary and the wanted changes.

    Raises:
        InputError: for an unknown key of ``model.architecture``, or an architecture that is no text encoder.
    """
    if config.name_or_path is None:
        base: PreTrainedConfig = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    else:
        name = resolve_model_path(config.name_or_path)
        try:
            base = AutoConfig.from_pretrained(name, **hub_options(config))
        except UNUSABLE as error:
            raise loading_error("config", config, error) from error
    if not is_text_encoder(base):
        raise InputError(
            f"model.name_or_path={config.name_or_path}: its architecture is {base.model_type!r}; "
            "a text encoder is needed, such as bert, roberta, ernie, electra or deberta-v2"
        )
    for key, value in config.architecture.items():
        if not config.from_scratch:
            raise InputError(
                f"model.architecture.{key}={value}: only with model.from_scratch=true; weights fix the rest"
            )
        _change(base, key, value)
    heads = getattr(base, "num_attention_heads", 1)
    if base.hidden_size % heads:
        raise InputError(
            f"model.architecture.hidden_size={base.hidden_size}: must be a multiple of num_attention_heads={heads}"
        )
    if len(tokenizer) > base.vocab_size:
        raise InputError(
            f"model.name_or_path={config.name_or_path}: the tokenizer has {len(tokenizer)} entries and the model "
            f"{base.vocab_size}: they do not belong together"
        )
    return base


def longest_input(architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens a pair may have for this encoder."""
    positions: int = getattr(architecture, "max_position_embeddings", None) or 512
    return min(positions - first_position(architecture), tokenizer.model_max_length)


def check_length(max_length: int, architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Hold ``dataset.max_length`` to the encoder's positions.

    Raises:
        InputError: naming both.
    """
    limit = longest_input(architecture, tokenizer)
    if max_length > limit:
        raise InputError(f"dataset.max_length={max_length}: this model has {limit} positions; must be <= {limit}")


def is_text_encoder(config: PreTrainedConfig) -> bool:
    """Tokens in, one state a token out, each of which sees both sides."""
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    named = all(hasattr(config, name) for name in ("hidden_size", "vocab_size"))
    return type(config) in MODEL_MAPPING and named and not causal and not getattr(config, "is_encoder_decoder", False)


def _change(base: PreTrainedConfig, key: str, value: Any) -> None:
    """Set one key of ``model.architecture``, of the kind that it has already."""
    known = base.to_dict()
    if key not in known:
        hint = did_you_mean(key, known)
        raise InputError(f"model.architecture.{key}: {base.model_type} has no such setting{hint}")
    if isinstance(known[key], int | float) and not isinstance(value, int | float):
        raise InputError(f"model.architecture.{key}={value}: must be a number, as {known[key]} is")
    if key.startswith("num_") or key.endswith("_size"):
        counts = isinstance(value, int) and value >= 1
        if not counts:
            raise InputError(f"model.architecture.{key}={value}: must be a whole number >= 1")
    if (key.endswith("dropout_prob") or key.endswith("dropout")) and not 0 <= value < 1:
        raise InputError(f"model.architecture.{key}={value}: must be >= 0 and < 1")
    try:
        setattr(base, key, value)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"model.architecture.{key}={value}: {base.model_type} refuses this: {error}") from error
