"""Build the tokenizer and the model that a config names: from the hub, from a directory, or from scratch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from afqmc.errors import InputError
from afqmc.model.architecture import build_architecture, check_length
from afqmc.model.classifier import PairClassifier, encoder_class, encoder_options
from afqmc.model.config import ModelConfig, Pooling
from afqmc.model.hub import UNUSABLE, cannot_load, first_line, hub_options, resolved
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
_GIVEN = ("num_labels", "vocab_size", "pad_token_id")  # what a plugged-in model is called with, beside model.args


def build_tokenizer(config: ModelConfig, sentences: Callable[[], Iterable[str]]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``name_or_path``, or one whose vocabulary is learnt from ``sentences()``.

    Raises:
        InputError: when there is none to be had, naming what was tried.
    """
    if config.name_or_path is None:
        return train_wordpiece(sentences(), config.vocab_size)
    name = resolved(config.name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **hub_options(config))
    except UNUSABLE as error:
        raise cannot_load("tokenizer", config, error) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a directory that has none
        raise InputError(f"model.name_or_path={config.name_or_path}: no tokenizer there (tokenizer.json or vocab.txt)")
    return tokenizer


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
    check_plugged_in(config)
    options = encoder_options(architecture, config.pooling)
    if config.pooling is Pooling.pooler and not options:
        raise InputError(
            f"model.pooling=pooler: a {architecture.model_type} has none; legal: cls, mean, max, first_last_mean"
        )
    if config.from_scratch:
        try:
            encoder = encoder_class(architecture)(architecture, **options)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            keys = ", ".join(f"model.architecture.{key}={value}" for key, value in config.architecture.items())
            raise InputError(f"{keys}: {architecture.model_type} refuses this: {error}") from error
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
    if config.mimetic_init and not config.from_scratch:
        raise InputError("model.mimetic_init=true: only with model.from_scratch=true; weights fix the rest")
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
    assert config.name_or_path is not None
    name = resolved(config.name_or_path)
    if Path(name).is_dir() and not any((Path(name) / file).exists() for file in WEIGHT_FILES):
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
    except RuntimeError as error:
        raise InputError(
            f"model.name_or_path={name}: its weights are of a different architecture than its config "
            f"({architecture.model_type}): {first_line(error)}"
        ) from error
    except UNUSABLE as error:
        raise cannot_load("weights", config, error) from error
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
