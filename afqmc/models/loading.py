"""Build the tokenizer and the model that a config names: from the hub, from a directory, or from scratch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from afqmc.models.architecture import build_architecture, check_length
from afqmc.models.config import ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder, encoder_class, encoder_options
from afqmc.models.files import WEIGHT_FILES, check_lfs
from afqmc.models.hub import UNUSABLE, hub_options, loading_error, resolve_model_path
from afqmc.models.mimetic_init import apply_mimetic_init
from afqmc.models.tensors import check_state
from afqmc.models.wordpiece import train_wordpiece
from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target

log = logging.getLogger(__name__)

_HEADS = {
    "pooler", "cls", "lm_head", "classifier", "qa_outputs", "predictions", "seq_relationship", "lm_predictions",
    "mask_predictions", "discriminator_predictions", "generator_predictions", "generator_lm_head",
}  # fmt: skip
_PROBES = (("怎么还款", "额度"), ("how to pay", "my limit"))  # pairs on which a tokenizer is tried
_GIVEN = ("num_labels", "vocab_size", "pad_token_id")  # what a plugged-in model is called with, beside model.args


def build_tokenizer(config: ModelConfig, sentences: Callable[[], Iterable[str]]) -> PreTrainedTokenizerBase:
    """The tokenizer of ``name_or_path``, or one whose vocabulary is learnt from ``sentences()``.

    Raises:
        InputError: when there is none to be had, naming what was tried.
    """
    if config.name_or_path is None:
        return train_wordpiece(sentences(), config.vocab_size)
    name = resolve_model_path(config.name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **hub_options(config))
    except UNUSABLE as error:
        raise loading_error("tokenizer", config, error) from error
    check_lfs(config, "tokenizer")  # a pointer in place of vocab.txt is read as a vocabulary of three entries
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a directory that has none
        raise InputError(f"model.name_or_path={config.name_or_path}: no tokenizer there (tokenizer.json or vocab.txt)")
    check_separator(tokenizer, f"model.name_or_path={config.name_or_path}")
    return tokenizer


def check_separator(tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Check that a pair has a token between its sentences: without one, (ab, c) is the same input as (a, bc).

    Raises:
        InputError: beginning with ``key``.
    """
    for first, second in _PROBES:
        one, other = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second))
        whole, joined = tokenizer(first, second)["input_ids"], [*one, *other]
        starts = range(len(whole) - len(joined) + 1)
        if one and other and any(whole[start : start + len(joined)] == joined for start in starts):
            raise InputError(
                f"{key}: its tokenizer puts no token between the two sentences of a pair; it needs a post-processor "
                "that adds [CLS] and [SEP] or the like (tokenizer.json, post_processor)"
            )


def build_model(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    labels: tuple[str, ...],
    max_length: int,
    device: str | None = None,
) -> nn.Module:
    """The model in float32, its head new; on the ``meta`` device an encoder has shapes and no weights.

    Raises:
        InputError: when weights cannot be had or do not fit the architecture.
    """
    if config._target_ is not None:
        return build_custom_model(config, tokenizer, labels)
    architecture = build_architecture(config, tokenizer)
    check_length(max_length, architecture, tokenizer)
    check_model_config(config)
    options = encoder_options(architecture, config.pooling)
    if config.pooling is Pooling.pooler and not options:
        raise InputError(
            f"model.pooling=pooler: a {architecture.model_type} has none; legal: cls, mean, max, first_last_mean"
        )
    if config.from_scratch:
        try:
            with torch.device(device) if device else nullcontext():
                encoder = encoder_class(architecture)(architecture, **options)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            keys = ", ".join(f"model.architecture.{key}={value}" for key, value in config.architecture.items())
            raise InputError(f"{keys}: {architecture.model_type} refuses this: {error}") from error
        if config.mimetic_init:
            apply_mimetic_init(encoder)
    else:
        encoder = load_pretrained(config, architecture, options, device)
    return CrossEncoder(encoder.float(), len(labels), config.pooling, config.head_dropout)


def check_model_config(config: ModelConfig) -> None:
    """What can be said of a model before anything is loaded: its directory is there, a plug-in has its arguments.

    Raises:
        InputError: naming the key or the argument.
    """
    if config.name_or_path is not None:
        resolve_model_path(config.name_or_path)
    if config.mimetic_init and not config.from_scratch:
        raise InputError("model.mimetic_init=true: only with model.from_scratch=true; weights fix the rest")
    if config._target_ is None:
        if config.args:
            raise InputError("model.args: only with model._target_")
        if config.name_or_path is None and not config.from_scratch:
            raise InputError("model.name_or_path: is not set; give a hub id or a directory, or model.from_scratch=true")
        return
    check_arguments(import_target(config._target_, "model._target_"), config.args, "model.args", provided=_GIVEN)


def build_custom_model(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]) -> nn.Module:
    """Call a person's own ``_target_``; whatever it returns must be a module from token batches to logits (B, C)."""
    assert config._target_ is not None
    check_model_config(config)
    given: dict[str, Any] = {
        "num_labels": len(labels),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    key = f"model._target_={config._target_}"
    try:
        model = import_target(config._target_, "model._target_")(**given, **config.args)
    except InputError:
        raise
    except Exception as error:  # a person's own code
        raise InputError(f"{key}: raised {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{key}: returned {type(model).__name__}; must be a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{key}: returned a model without parameters to train (requires_grad is false for all)")
    _try_forward(key, model, tokenizer, len(labels))
    check_state(model, key)
    return model


def _try_forward(key: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, classes: int) -> None:
    """Two short pairs through a model, so that a wrong shape is found before training."""
    batch = tokenizer(["a", "b c"], ["d", "e"], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in tokenizer.model_input_names if name in batch}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = model(**inputs)
    except Exception as error:
        raise InputError(
            f"{key}: called with {', '.join(inputs)} (B, T), it raised {type(error).__name__}: {error}"
        ) from error
    model.train(was_training)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != (2, classes):
        raise InputError(f"{key}: for 2 pairs it returned {shape}; must be logits (B, C), here (2, {classes})")


def load_pretrained(
    config: ModelConfig, architecture: PreTrainedConfig, options: dict[str, Any], device: str | None = None
) -> PreTrainedModel:
    """The encoder with its weights in float32; on the ``meta`` device they are compared with it, and not read.

    Raises:
        InputError: when they cannot be had or are not of this architecture.
    """
    assert config.name_or_path is not None
    name = resolve_model_path(config.name_or_path)
    if os.path.isdir(name) and not any((Path(name) / file).exists() for file in WEIGHT_FILES):
        raise InputError(
            f"model.name_or_path={name}: holds no weights ({' or '.join(WEIGHT_FILES[::2])}); "
            "model.from_scratch=true trains its architecture from random ones"
        )
    try:
        with _transformers_silent(bar=not os.path.isdir(name)):
            loaded: Any = encoder_class(architecture).from_pretrained(
                name,
                config=architecture,
                dtype=torch.float32,
                device_map=device,
                ignore_mismatched_sizes=True,  # they are told by _hold_to
                output_loading_info=True,
                **hub_options(config),
                **options,
            )
    except UNUSABLE as error:
        raise loading_error("weights", config, error) from error
    encoder, loading = loaded
    _hold_to(name, architecture.model_type, encoder.base_model_prefix, loading)
    return encoder  # type: ignore[no-any-return]


def _hold_to(name: str, kind: str, prefix: str, loading: dict[str, Any]) -> None:
    """Refuse weights of another architecture; say what is not used of them, but for what an encoder leaves out."""
    told = f"model.name_or_path={name}: its weights are of a different architecture than its config ({kind})"
    if wrong := sorted(loading["mismatched_keys"]):
        key, found, wanted = wrong[0]
        raise InputError(
            f"{told}: {len(wrong)} tensors have another shape, such as {key}: {tuple(found)}, not {tuple(wanted)}"
        )
    missing = sorted(loading["missing_keys"])
    if lost := [key for key in missing if not key.startswith("pooler.")]:
        raise InputError(f"{told}: {len(lost)} tensors are missing, such as {lost[0]}")
    if missing:
        log.warning("the pooler of %s has no weights there and starts from random ones", name)
    unused = [key for key in sorted(loading["unexpected_keys"]) if not _is_left_out(key.removeprefix(f"{prefix}."))]
    if unused:
        log.warning("%s: %d of its tensors are not used, such as %s", name, len(unused), unused[0])


def _is_left_out(key: str) -> bool:
    """Whether an encoder without a head has no use for this tensor: heads of pretraining, the pooler, and counters."""
    return key.split(".")[0] in _HEADS or key.endswith("position_ids")


@contextmanager
def _transformers_silent(bar: bool) -> Iterator[None]:
    """Without the library's own report of tensors; ``bar`` leaves its bars, which a download shows."""
    level, shown = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if not bar:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if shown and not bar:
            hf_logging.enable_progress_bar()


def model_name(config: ModelConfig) -> str:
    """What to call it."""
    name = config._target_ or config.name_or_path or "BERT"
    return f"{name} from random weights" if config.from_scratch and not config._target_ else name


def count_parameters(model: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
