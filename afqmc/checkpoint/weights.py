"""Saves and loads weights as safetensors, with the config and the tokenizer of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from afqmc.checkpoint.safety import check_untrusted, tensor_shapes
from afqmc.checkpoint.store import replace_directory
from afqmc.models.config import Head, ModelConfig, Pooling
from afqmc.models.cross_encoder import (
    CrossEncoder,
    NativeCrossEncoder,
    encoder_class,
    encoder_options,
    matches_hf_classifier,
    native_class,
)
from afqmc.models.loading import build_custom_model
from afqmc.models.masked_lm import MaskedLanguageModel
from afqmc.models.tensors import with_duplicates, without_duplicates
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import check_regular, read_json

_WEIGHTS = "model.safetensors"
_LABELS = "labels.json"
_TIED = "tied.json"  # further names of tensors that are saved once


@dataclass(frozen=True)
class Loaded:
    """The content of a checkpoint."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]


def save_weights(
    target: Path,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    labels: tuple[str, ...],
    state: dict[str, Tensor] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> None:
    """Replace ``target`` atomically by a directory that ``transformers`` loads.

    With the standard head (``pooling=pooler_output``) ``AutoModelForSequenceClassification`` loads all of it. Otherwise
    ``AutoModel`` loads the encoder, and ``load_weights`` the encoder and the head. ``AutoModelForMaskedLM`` loads a
    masked language model.

    Args:
        target: The directory.
        model: The model, whose weights may be sharded if ``state`` is given.
        tokenizer: The tokenizer of the model.
        labels: Label names in class order; empty for a masked language model.
        state: Full weights, used instead of the model's.
        write_more: Writes further files into the directory that it gets.
    """

    def write(directory: Path) -> None:
        full = state or model.state_dict()
        if isinstance(model, PreTrainedModel) and not labels:  # AutoModel looks for tied tensors under encoder names
            prefix = f"{model.base_model_prefix}."
            full = dict(sorted(full.items(), key=lambda item: not item[0].startswith(prefix)))
        tensors, tied = without_duplicates(full)
        save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})
        if tied:  # in a file of its own: safetensors writes its metadata in a different order each time
            (directory / _TIED).write_text(json.dumps(tied, indent=2), encoding="utf-8")
        tokenizer.save_pretrained(directory)
        if labels:
            (directory / _LABELS).write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
        elif isinstance(model, PreTrainedModel):
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(directory)
        if isinstance(model, CrossEncoder):
            config = model.encoder.config
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: index for index, label in enumerate(labels)}
            encoder = type(model.encoder)
            config.architectures = [(native_class(config) if matches_hf_classifier(model) else encoder).__name__]
            config.save_pretrained(directory)
        if write_more is not None:
            write_more(directory)

    replace_directory(target, write)


def saved_module(model: nn.Module) -> nn.Module:
    """Return the module whose weights are saved: the model, or what it wraps in pretraining."""
    return model.lm if isinstance(model, MaskedLanguageModel) else model


def restore(model: nn.Module, source: Path) -> None:
    """Load the weights of a checkpoint into a model of the same architecture."""
    model.load_state_dict(read_tensors(source))


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint on the CPU, with tied tensors under each of their names.

    Raises:
        InputError: if a file is not regular, or ``tied.json`` names a tensor that is missing.
    """
    check_regular(source / _WEIGHTS)
    tensors, tied = load_file(source / _WEIGHTS), source / _TIED
    with as_input_error(f"{tied}: not usable"):
        return with_duplicates(tensors, read_json(tied) if tied.exists() else {})


def load_weights(source: Path, config: ModelConfig, trust: bool = False) -> Loaded:
    """Return the model of a checkpoint directory, on the CPU and in evaluation mode.

    The directory may be untrusted: nothing is unpickled, and no code that it names is run unless ``trust`` is set.

    Args:
        source: A directory that ``save_weights`` wrote.
        config: The ``model`` group of the run.
        trust: Whether ``model._target_`` may be imported and called.

    Raises:
        InputError: if the directory is not a valid checkpoint, or names code without ``trust``.
    """
    if not (source / _WEIGHTS).exists() or not (source / _LABELS).exists():
        raise InputError(
            f"{source}: no weights here ({_WEIGHTS} and {_LABELS}); did the run reach its first evaluation?"
        )
    check_untrusted(source, own_code=config._target_ is not None)
    labels = tuple(read_json(source / _LABELS))
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model: nn.Module
    if config._target_ is not None:
        if not trust:
            raise InputError(f"{source}: model._target_={config._target_} is untrusted code; --trust runs it")
        model = build_custom_model(config, tokenizer, labels)
    else:
        architecture = AutoConfig.from_pretrained(source, trust_remote_code=False)
        with torch.device("meta"):  # allocates nothing, to compare the shapes first
            _check_shapes(source, _cross_encoder(architecture, config, len(labels)))
        model = _cross_encoder(architecture, config, len(labels)).float()
    try:
        restore(model, source)
    except RuntimeError as error:
        raise InputError(f"{source}: its weights do not fit its config: {str(error).splitlines()[0]}") from error
    return Loaded(model.eval(), tokenizer, labels)


def _cross_encoder(architecture: PreTrainedConfig, config: ModelConfig, classes: int) -> CrossEncoder:
    """Build the model of a checkpoint, without its weights."""
    if config.head is Head.native:
        architecture.num_labels = classes
        return NativeCrossEncoder(native_class(architecture)(architecture))
    options = encoder_options(architecture, Pooling(config.pooling))
    encoder = encoder_class(architecture)(architecture, **options)
    return CrossEncoder(encoder, classes, config.pooling, config.classifier_dropout)


def _check_shapes(source: Path, model: nn.Module) -> None:
    """Check the shapes of a model on the meta device against the header of the weights.

    Raises:
        InputError: naming the first tensor that is missing, unexpected, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = tensor_shapes(source / _WEIGHTS)
    for name in sorted(expected.keys() | saved.keys()):
        if expected.get(name) != saved.get(name):
            reason = f"{name} is {saved.get(name, 'missing')}, config.json needs {expected.get(name, 'none')}"
            raise InputError(f"{source}: its weights do not fit its config: {reason}")
