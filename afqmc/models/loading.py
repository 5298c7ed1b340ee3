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
from afqmc.models.config import Head, ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder, NativeCrossEncoder, encoder_class, encoder_options, native_class
from afqmc.models.files import WEIGHT_FILES, check_lfs
from afqmc.models.hub import hub_options, loading_error, resolve_model_path
from afqmc.models.mimetic_init import apply_mimetic_init
from afqmc.models.tensors import check_state
from afqmc.models.wordpiece import train_wordpiece
from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target

log = logging.getLogger(__name__)

# first parts of the names of tensors that an encoder without a head does not use
_HEADS = {
    "pooler",
    "cls",
    "lm_head",
    "classifier",
    "qa_outputs",
    "predictions",
    "seq_relationship",
    "lm_predictions",
    "mask_predictions",
    "discriminator_predictions",
    "generator_predictions",
    "generator_lm_head",
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector",
    "head",
    "decoder",
}
_PROBES = (("怎么还款", "额度"), ("how to pay", "my limit"))  # pairs that check_separator tokenises
_INJECTED = ("num_labels", "vocab_size", "pad_token_id")  # arguments of a custom model beside model.kwargs


def build_tokenizer(config: ModelConfig, sentences: Callable[[], Iterable[str]]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``name_or_path``, or train one on ``sentences()`` if that is null.

    Raises:
        InputError: if it cannot be loaded, or does not separate the sentences of a pair.
    """
    if config.name_or_path is None:
        return train_wordpiece(sentences(), config.vocab_size)
    name = resolve_model_path(config.name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **hub_options(config))
    except Exception as error:  # see loading_error
        raise loading_error("tokenizer", config, error) from error
    check_lfs(config, "tokenizer")  # a pointer instead of vocab.txt loads as a vocabulary of three entries
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers loads an empty one from a directory without
        raise InputError(f"model.name_or_path={config.name_or_path}: has no tokenizer (tokenizer.json or vocab.txt)")
    check_separator(tokenizer, f"model.name_or_path={config.name_or_path}")
    return tokenizer


def check_separator(tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Check that the tokenizer puts a token between the sentences of a pair.

    Without one, the pairs (ab, c) and (a, bc) would be the same input.

    Raises:
        InputError: with ``key``, if it does not.
    """
    for sentence1, sentence2 in _PROBES:
        ids1, ids2 = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (sentence1, sentence2))
        pair, joined = tokenizer(sentence1, sentence2)["input_ids"], [*ids1, *ids2]
        starts = range(len(pair) - len(joined) + 1)
        if ids1 and ids2 and any(pair[start : start + len(joined)] == joined for start in starts):
            raise InputError(
                f"{key}: its tokenizer puts no token between the two sentences of a pair; it needs a post-processor "
                "that adds tokens such as [CLS] and [SEP] (tokenizer.json, post_processor)"
            )


def build_model(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    labels: tuple[str, ...],
    max_length: int,
    device: str | None = None,
) -> nn.Module:
    """Build the model in float32, with a new head. On the ``meta`` device, an encoder has shapes but no weights.

    Raises:
        InputError: if the config is invalid, or weights cannot be loaded or do not match the architecture.
    """
    if config._target_ is not None:
        return build_custom_model(config, tokenizer, labels)
    architecture = build_architecture(config, tokenizer)
    check_length(max_length, architecture, tokenizer)
    check_model_config(config)
    if config.head is Head.native:
        return build_native(config, architecture, labels, device)
    options = encoder_options(architecture, config.pooling)
    if config.pooling is Pooling.pooler_output and not options:
        raise InputError(
            f"model.pooling=pooler_output: {architecture.model_type} has no pooler; "
            "allowed: cls, mean, max, first_last_avg"
        )
    if config.from_scratch:
        encoder = build_from_scratch(config, architecture, encoder_class(architecture), options, device)
    else:
        encoder = load_pretrained(config, architecture, options, device)
    return CrossEncoder(encoder.float(), len(labels), config.pooling, config.classifier_dropout)


def build_native(
    config: ModelConfig, architecture: PreTrainedConfig, labels: tuple[str, ...], device: str | None = None
) -> NativeCrossEncoder:
    """Build the model with the architecture's own classification head, which is pretrained if its labels fit.

    Raises:
        InputError: if the architecture has none, or weights cannot be loaded or do not match the architecture.
    """
    model_class = native_class(architecture)
    log.info("model.head=native: model.pooling=%s is not used", config.pooling.value)
    before = dict(getattr(architecture, "id2label", None) or {})
    architecture.num_labels = len(labels)
    architecture.problem_type = "single_label_classification"
    if config.from_scratch:
        return NativeCrossEncoder(build_from_scratch(config, architecture, model_class, {}, device).float())
    return NativeCrossEncoder(load_pretrained(config, architecture, {}, device, model_class, before).float())


def build_from_scratch(
    config: ModelConfig,
    architecture: PreTrainedConfig,
    model_class: type[PreTrainedModel],
    options: dict[str, Any],
    device: str | None = None,
) -> PreTrainedModel:
    """Build an encoder, or a model with a head, with random weights.

    Raises:
        InputError: with ``model.config_overrides``, if the architecture rejects them.
    """
    try:
        with torch.device(device) if device else nullcontext():
            model = model_class(architecture, **options)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        keys = ", ".join(f"model.config_overrides.{key}={value}" for key, value in config.config_overrides.items())
        raise InputError(f"{keys}: invalid for {architecture.model_type}: {error}") from error
    if config.mimetic_init:
        apply_mimetic_init(model.base_model)  # type: ignore[arg-type]
    return model


def check_model_config(config: ModelConfig) -> None:
    """Check the ``model`` group without loading anything: the directory exists, and ``kwargs`` fit ``_target_``.

    Raises:
        InputError: with the invalid key or argument.
    """
    if config.name_or_path is not None:
        resolve_model_path(config.name_or_path)
    if config.mimetic_init and not config.from_scratch:
        raise InputError("model.mimetic_init=true: only with model.from_scratch=true")
    if config._target_ is not None and (config.mixout > 0 or config.dropout.multi_sample > 1):
        key = f"mixout={config.mixout}" if config.mixout > 0 else f"dropout.multi_sample={config.dropout.multi_sample}"
        raise InputError(f"model.{key}: not with a custom model (model._target_)")
    if config.head is Head.native:
        _check_native(config)
    if config._target_ is None:
        if config.kwargs:
            raise InputError("model.kwargs: only with model._target_")
        if config.name_or_path is None and not config.from_scratch:
            raise InputError("model.name_or_path: is not set; set a hub id or a directory, or model.from_scratch=true")
        return
    check_arguments(import_target(config._target_, "model._target_"), config.kwargs, "model.kwargs", provided=_INJECTED)


def _check_native(config: ModelConfig) -> None:
    """Check that no key is set that only a linear head has.

    Raises:
        InputError: naming the key.
    """
    values = {
        "classifier_dropout": config.classifier_dropout,
        "dropout.multi_sample": config.dropout.multi_sample if config.dropout.multi_sample > 1 else None,
        "_target_": config._target_,
    }
    for key, value in values.items():
        if value is not None:
            raise InputError(
                f"model.{key}={value}: not with model.head=native, which has its own; use model.head=linear"
            )


def build_custom_model(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]) -> nn.Module:
    """Build the user's model by calling ``_target_``, and check it.

    Raises:
        InputError: if it raises, or does not return a trainable module that maps token batches to logits (B, C) and
            whose state can be saved.
    """
    assert config._target_ is not None
    check_model_config(config)
    injected: dict[str, Any] = {
        "num_labels": len(labels),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    key = f"model._target_={config._target_}"
    try:
        model = import_target(config._target_, "model._target_")(**injected, **config.kwargs)
    except InputError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{key}: raised {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{key}: returned {type(model).__name__}; must be a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{key}: returned a model without trainable parameters (requires_grad is false for all)")
    _try_forward(key, model, tokenizer, len(labels))
    check_state(model, key)
    return model


def _try_forward(key: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, classes: int) -> None:
    """Check the shape of the logits for two short pairs."""
    batch = tokenizer(["a", "b c"], ["d", "e"], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in tokenizer.model_input_names if name in batch}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(**inputs)
    except Exception as error:
        raise InputError(
            f"{key}: called with {', '.join(inputs)} (B, T), it raised {type(error).__name__}: {error}"
        ) from error
    model.train(was_training)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise InputError(f"{key}: returned {shape} for 2 pairs; must be logits (B, C), here (2, {classes})")


def load_pretrained(
    config: ModelConfig,
    architecture: PreTrainedConfig,
    options: dict[str, Any],
    device: str | None = None,
    model_class: type[PreTrainedModel] | None = None,
    pretrained_labels: dict[int, str] | None = None,
) -> PreTrainedModel:
    """Load the encoder, or ``model_class``, with its weights in float32.

    Args:
        config: The ``model`` group.
        architecture: Of the encoder.
        options: Further arguments of the class.
        device: Where to build it; None for the CPU.
        model_class: Of a model with a head; None for the encoder alone.
        pretrained_labels: Of a classification head; None for a masked-LM head. One of another size is replaced.

    On the ``meta`` device, names and shapes of the weights are checked, and the weights are not read.

    Raises:
        InputError: if weights cannot be loaded or do not match the architecture.
    """
    assert config.name_or_path is not None
    name = resolve_model_path(config.name_or_path)
    if os.path.isdir(name) and not any((Path(name) / file).exists() for file in WEIGHT_FILES):
        raise InputError(
            f"model.name_or_path={name}: has no weights ({' or '.join(WEIGHT_FILES[::2])}); "
            "model.from_scratch=true trains its architecture from random weights"
        )
    try:
        with quiet_transformers(progress=not os.path.isdir(name)):
            loaded: Any = (model_class or encoder_class(architecture)).from_pretrained(
                name,
                config=architecture,
                dtype=torch.float32,
                device_map=device,
                ignore_mismatched_sizes=True,  # _check_loading_info reports them
                output_loading_info=True,
                **hub_options(config),
                **options,
            )
    except Exception as error:  # see loading_error
        raise loading_error("weights", config, error) from error
    encoder, loading = loaded
    if pretrained_labels is not None:
        _report_native_head(name, encoder, loading, pretrained_labels)
    _check_loading_info(name, architecture.model_type, encoder.base_model_prefix, loading, model_class is not None)
    return encoder  # type: ignore[no-any-return]


def _report_native_head(name: str, model: PreTrainedModel, loading: dict[str, Any], labels: dict[int, str]) -> None:
    """Log whether the pretrained head is used, and take its tensors out of ``loading``, which lists the exceptions."""
    prefix = f"{model.base_model_prefix}."

    def in_head(key: str) -> bool:
        return not key.startswith(prefix) or key.startswith(f"{prefix}pooler.")

    new = sorted(key for key in loading["missing_keys"] if in_head(key))
    resized = sorted(entry[0] for entry in loading["mismatched_keys"] if in_head(entry[0]))
    loading["missing_keys"] = {key for key in loading["missing_keys"] if not in_head(key)}
    loading["mismatched_keys"] = {entry for entry in loading["mismatched_keys"] if not in_head(entry[0])}
    classes = model.config.num_labels
    if resized:
        log.warning(
            "model.head=native: the head of %s has %d labels, this run %d: %s start from random weights",
            name, len(labels), classes, ", ".join(dict.fromkeys([*resized, *new])),
        )  # fmt: skip
    elif new:
        log.warning(
            "model.head=native: %s has no weights for %s, which start from random weights", name, ", ".join(new)
        )
    else:
        log.info(
            "model.head=native: the pretrained head is used; its classes: %s", ", ".join(map(str, labels.values()))
        )


def _check_loading_info(name: str, kind: str, prefix: str, loading: dict[str, Any], has_head: bool) -> None:
    """Check that the weights match the architecture, and warn of unused ones other than those of known heads.

    Raises:
        InputError: if tensors are missing or have another shape.
    """
    problem = f"model.name_or_path={name}: its weights are of a different architecture than its config ({kind})"
    if mismatched := sorted(loading["mismatched_keys"]):
        key, shape, expected = mismatched[0]
        raise InputError(
            f"{problem}: {len(mismatched)} tensors have another shape, "
            f"such as {key}: {tuple(shape)}, not {tuple(expected)}"
        )
    missing = sorted(loading["missing_keys"])
    # the encoder's tensors have its prefix in a model with a head, and none in the encoder itself
    is_part = [key.startswith(f"{prefix}.") if has_head else not key.startswith("pooler.") for key in missing]
    if required := [key for key, is_required in zip(missing, is_part, strict=True) if is_required]:
        raise InputError(f"{problem}: {len(required)} tensors are missing, such as {required[0]}")
    if missing and has_head:
        log.warning("%s has no weights for the masked-LM head, which starts from random weights", name)
    elif missing:
        log.warning("%s has no weights for the pooler, which starts from random weights", name)
    unused = [key for key in sorted(loading["unexpected_keys"]) if not _is_expected(key.removeprefix(f"{prefix}."))]
    if unused:
        log.warning("%s: %d of its tensors are not used, such as %s", name, len(unused), unused[0])


def _is_expected(key: str) -> bool:
    """Return whether a checkpoint may have this tensor beside the encoder's: a pretraining head, or position ids."""
    return key.split(".")[0] in _HEADS or key.endswith("position_ids")


@contextmanager
def quiet_transformers(progress: bool) -> Iterator[None]:
    """Silence the warnings of transformers about tensors, and its progress bars unless ``progress`` is set."""
    level, had_progress = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if not progress:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if had_progress and not progress:
            hf_logging.enable_progress_bar()


def model_name(config: ModelConfig) -> str:
    """Return the name of the model for messages and the run's record."""
    name = config._target_ or config.name_or_path or "BERT"
    return f"{name} from random weights" if config.from_scratch and not config._target_ else name


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
