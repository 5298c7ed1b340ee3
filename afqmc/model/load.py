"""Build the tokenizer and the model that a config names: from the hub, from a directory, or from scratch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from afqmc.errors import InputError
from afqmc.model.classifier import PairClassifier, encoder_class, encoder_options
from afqmc.model.config import ModelConfig, Pooling
from afqmc.model.initialisation import mimetic
from afqmc.model.vocabulary import train_wordpiece
from afqmc.plugins import check_arguments, locate

log = logging.getLogger(__name__)

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_HUB_TIMEOUT_S = 5
_GIVEN = ("num_labels", "vocab_size", "pad_token_id")  # what a plugged-in model is called with, beside model.args


def build_tokenizer(config: ModelConfig, sentences: Callable[[], Iterable[str]]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``name_or_path``, or one whose vocabulary is learnt from ``sentences()``.

    Raises:
        InputError: when there is none to be had, naming what was tried.
    """
    if config.name_or_path is None:
        return train_wordpiece(sentences(), config.vocab_size)
    _refuse_missing_directory(config.name_or_path)
    try:
        return AutoTokenizer.from_pretrained(config.name_or_path, **hub_options(config))
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load("tokenizer", config, error) from error


def build_architecture(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The encoder's config; for a model from scratch with the tokenizer's vocabulary and the wanted changes.

    Raises:
        InputError: for an unknown key of ``model.architecture``, or an architecture that is no text encoder.
    """
    if config.name_or_path is None:
        base: PreTrainedConfig = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    else:
        try:
            base = AutoConfig.from_pretrained(config.name_or_path, **hub_options(config))
        except (OSError, ValueError, KeyError) as error:
            raise _cannot_load("config", config, error) from error
    if (
        type(base) not in MODEL_MAPPING
        or not hasattr(base, "hidden_size")
        or getattr(base, "is_encoder_decoder", False)
    ):
        raise InputError(
            f"model.name_or_path={config.name_or_path}: its architecture is {base.model_type!r}; "
            "a text encoder is needed, such as bert, roberta, ernie, electra or deberta-v2"
        )
    for key, value in config.architecture.items():
        if not config.from_scratch:
            raise InputError(
                f"model.architecture.{key}={value}: only with model.from_scratch=true; weights fix the rest"
            )
        if not hasattr(base, key):
            raise InputError(f"model.architecture.{key}: {base.model_type} has no such setting")
        setattr(base, key, value)
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
    if "roberta" in architecture.model_type:  # counts positions from pad_token_id + 1
        positions -= (architecture.pad_token_id or 0) + 1
    return min(positions, tokenizer.model_max_length)


def check_length(max_length: int, architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Hold ``dataset.max_length`` to the encoder's positions.

    Raises:
        InputError: naming both.
    """
    limit = longest_input(architecture, tokenizer)
    if max_length > limit:
        raise InputError(f"dataset.max_length={max_length}: this model has {limit} positions; must be <= {limit}")


def build_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_length: int
) -> nn.Module:
    """The model in float32, its head new.

    Raises:
        InputError: when weights cannot be had or do not fit the architecture.
    """
    if config._target_ is not None:
        return plugged_in(config, tokenizer, labels)
    architecture = build_architecture(config, tokenizer)
    check_length(max_length, architecture, tokenizer)
    options = encoder_options(architecture, config.pooling)
    if config.pooling is Pooling.pooler and not options:
        raise InputError(
            f"model.pooling=pooler: a {architecture.model_type} has none; legal: cls, mean, max, first_last_mean"
        )
    if config.from_scratch:
        encoder = encoder_class(architecture)(architecture, **options)
        if config.mimetic_init:
            mimetic(encoder)
    else:
        encoder = _pretrained(config, architecture, options)
    return PairClassifier(encoder.float(), len(labels), config.pooling, config.head_dropout)


def check_plugged_in(config: ModelConfig) -> None:
    """Hold a plugged-in model's arguments to its signature.

    Raises:
        InputError: naming the argument.
    """
    if config._target_ is None:
        if config.args:
            raise InputError("model.args: only with model._target_")
        if config.name_or_path is None and not config.from_scratch:
            raise InputError("model.name_or_path: is not set; give a hub id or a directory, or model.from_scratch=true")
        return
    check_arguments(locate(config._target_, "model._target_"), config.args, "model.args", given=_GIVEN)


def plugged_in(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]) -> nn.Module:
    """Call a person's own ``_target_``; whatever it returns must be a module from token batches to logits (B, C)."""
    assert config._target_ is not None
    check_plugged_in(config)
    given: dict[str, Any] = {
        "num_labels": len(labels),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = locate(config._target_, "model._target_")(**given, **config.args)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model._target_={config._target_}: returned {type(model).__name__}; must be a torch.nn.Module"
        )
    return model


def _pretrained(config: ModelConfig, architecture: PreTrainedConfig, options: dict[str, Any]) -> PreTrainedModel:
    name = config.name_or_path
    assert name is not None
    local = Path(name).expanduser()
    if local.is_dir() and not any((local / file).exists() for file in WEIGHT_FILES):
        raise InputError(
            f"model.name_or_path={name}: holds no weights ({' or '.join(WEIGHT_FILES[::2])}); "
            "model.from_scratch=true trains its architecture from random ones"
        )
    try:
        loaded: Any = encoder_class(architecture).from_pretrained(
            name,
            config=architecture,
            dtype=torch.float32,
            output_loading_info=True,
            **hub_options(config),
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _cannot_load("weights", config, error) from error
    encoder, loading = loaded
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(
            f"model.name_or_path={name}: its weights are of a different architecture than its config "
            f"({architecture.model_type}): {len(missing)} tensors are missing, such as {missing[0]}"
        )
    if loading["missing_keys"]:
        log.warning("the pooler of %s has no weights there and starts from random ones", name)
    return encoder  # type: ignore[no-any-return]


def hub_options(config: ModelConfig) -> dict[str, Any]:
    """What every ``from_pretrained`` is given: no code from elsewhere, and the cache alone where the hub is away."""
    name = config.name_or_path
    local = name is None or Path(name).expanduser().is_dir() or not hub_is_reachable()
    return {"revision": config.revision or "main", "trust_remote_code": False, "local_files_only": local}


@cache
def hub_is_reachable() -> bool:
    """Whether the hub answers at all, asked once: its client would try for a minute."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        log.debug("%s: %s", constants.ENDPOINT, error)
        return False
    return True


def _refuse_missing_directory(name: str) -> None:
    if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).expanduser().is_dir():
        raise InputError(f"model.name_or_path={name}: no such directory")


def _cannot_load(what: str, config: ModelConfig, error: Exception) -> InputError:
    """The same advice for everything that fails on the way to a pretrained model."""
    name = config.name_or_path
    assert name is not None
    reason = str(error).strip().splitlines()[0]
    if Path(name).expanduser().is_dir():
        return InputError(f"model.name_or_path={name}: no usable {what} in this directory: {reason}")
    tried = (
        f"{constants.ENDPOINT} and the cache" if hub_is_reachable() else f"{constants.ENDPOINT} (no answer), the cache"
    )
    return InputError(
        f"model.name_or_path={name}: cannot get its {what}; tried {tried}: {reason}\n"
        "  a mirror:            HF_ENDPOINT=https://hf-mirror.com python -m afqmc.run ...\n"
        "  a local directory:   model.name_or_path=DIR (config.json, tokenizer.json, model.safetensors)\n"
        "  no network at all:   python -m afqmc.run experiment=quickstart"
    )
