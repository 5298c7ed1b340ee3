"""Build the encoder's config and check that it is a text encoder that fits the tokenizer and ``dataset.max_length``."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, BertConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
)

from afqmc.models.config import ModelConfig
from afqmc.models.hub import hub_options, loading_error, resolve_model_path
from afqmc.models.padding_free import first_position
from afqmc.utils.errors import InputError, did_you_mean


def build_architecture(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Load or create the encoder's config, and apply ``model.config_overrides`` to that of a model from scratch.

    Without ``name_or_path`` it is a BERT config with the vocabulary size of the tokenizer.

    Raises:
        InputError: if ``model.config_overrides`` is invalid, or the encoder is not a text encoder or does not fit the
            tokenizer.
    """
    if config.name_or_path is None:
        base: PreTrainedConfig = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    else:
        name = resolve_model_path(config.name_or_path)
        try:
            base = AutoConfig.from_pretrained(name, **hub_options(config))
        except Exception as error:  # see loading_error
            raise loading_error("config", config, error) from error
    if not is_text_encoder(base):
        raise InputError(
            f"model.name_or_path={config.name_or_path}: its architecture is {base.model_type!r}; "
            "must be a text encoder, such as bert, roberta, ernie, electra or deberta-v2"
        )
    for key, value in config.config_overrides.items():
        if not config.from_scratch:
            raise InputError(
                f"model.config_overrides.{key}={value}: only with model.from_scratch=true; pretrained weights fix it"
            )
        _set_option(base, key, value)
    heads = getattr(base, "num_attention_heads", 1)
    if base.hidden_size % heads:
        raise InputError(
            f"model.config_overrides.hidden_size={base.hidden_size}: must be a multiple of num_attention_heads={heads}"
        )
    if len(tokenizer) > base.vocab_size:
        raise InputError(
            f"model.name_or_path={config.name_or_path}: the tokenizer has {len(tokenizer)} entries and the model "
            f"{base.vocab_size}: they do not match"
        )
    return base


def longest_input(architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the maximum number of tokens per pair that the encoder and the tokenizer allow."""
    positions: int = getattr(architecture, "max_position_embeddings", None) or 512
    return min(positions - first_position(architecture), tokenizer.model_max_length)


def check_length(max_length: int, architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check ``dataset.max_length`` against the number of position embeddings.

    Raises:
        InputError: with both values, if it is too long.
    """
    limit = longest_input(architecture, tokenizer)
    if max_length > limit:
        raise InputError(f"dataset.max_length={max_length}: this model has {limit} positions; must be <= {limit}")


def is_text_encoder(config: PreTrainedConfig) -> bool:
    """Return whether the architecture is a bidirectional encoder of token ids (not a decoder, not encoder-decoder)."""
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    has_sizes = all(hasattr(config, name) for name in ("hidden_size", "vocab_size"))
    return (
        type(config) in MODEL_MAPPING and has_sizes and not causal and not getattr(config, "is_encoder_decoder", False)
    )


def _set_option(base: PreTrainedConfig, key: str, value: Any) -> None:
    """Set one key of ``model.config_overrides``, if it exists and the value has the right type and range."""
    current = base.to_dict()
    if key not in current:
        hint = did_you_mean(key, current)
        raise InputError(f"model.config_overrides.{key}: {base.model_type} has no such setting{hint}")
    if isinstance(current[key], int | float) and not isinstance(value, int | float):
        raise InputError(f"model.config_overrides.{key}={value}: must be a number (the default is {current[key]})")
    is_count = key.startswith("num_") or key.endswith("_size")
    if is_count and (not isinstance(value, int) or value < 1):
        raise InputError(f"model.config_overrides.{key}={value}: must be an integer >= 1")
    if (key.endswith("dropout_prob") or key.endswith("dropout")) and not 0 <= value < 1:
        raise InputError(f"model.config_overrides.{key}={value}: must be >= 0 and < 1")
    try:
        setattr(base, key, value)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"model.config_overrides.{key}={value}: invalid for {base.model_type}: {error}") from error
