"""Weights on disk: safetensors with the model's config and tokenizer, replaced whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from afqmc.checkpoint.safety import check_untrusted, tensor_shapes
from afqmc.checkpoint.store import replace_directory
from afqmc.models.config import ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder, encoder_class, encoder_options, matches_hf_classifier
from afqmc.models.loading import build_custom_model
from afqmc.models.tensors import with_duplicates, without_duplicates
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import check_regular, read_json

_WEIGHTS = "model.safetensors"
_LABELS = "labels.json"
_TIED = "tied.json"  # the other names of tensors that have several


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]


def save_weights(
    target: Path,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    labels: tuple[str, ...],
    state: Optional[dict[str, Tensor]] = None,
) -> None:
    """Write a directory that ``transformers`` loads, beside ``target``, then put it there.

    With the standard head (``pooling=pooler``) ``AutoModelForSequenceClassification`` reads all of it; otherwise
    ``AutoModel`` reads the encoder and ``afqmc.checkpoint.weights.load_weights`` the whole. ``state`` stands in for the
    model's own where that is in shards.
    """

    def write(aside: Path) -> None:
        tensors, same = without_duplicates(state or model.state_dict())
        save_file(tensors, aside / _WEIGHTS, metadata={"format": "pt"})
        if same:  # not as metadata of the file, which safetensors writes in another order each time
            (aside / _TIED).write_text(json.dumps(same, indent=2), encoding="utf-8")
        tokenizer.save_pretrained(aside)
        (aside / _LABELS).write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
        if isinstance(model, CrossEncoder):
            config = model.encoder.config
            config.id2label = dict(enumerate(labels))
            config.label2id = {name: number for number, name in enumerate(labels)}
            name = type(model.encoder).__name__
            config.architectures = [
                name.replace("Model", "ForSequenceClassification") if matches_hf_classifier(model) else name
            ]
            config.save_pretrained(aside)

    replace_directory(target, write)


def restore(model: nn.Module, source: Path) -> None:
    """Put a checkpoint's weights into a model of the same architecture."""
    model.load_state_dict(read_tensors(source))


def read_tensors(source: Path) -> dict[str, Tensor]:
    """A checkpoint's weights, on the CPU, tied ones under each of their names.

    Raises:
        InputError: where a file is not regular, or ``tied.json`` names a tensor that is not there.
    """
    check_regular(source / _WEIGHTS)
    tensors, tied = load_file(source / _WEIGHTS), source / _TIED
    with as_input_error(f"{tied}: not usable"):
        return with_duplicates(tensors, read_json(tied) if tied.exists() else {})


def load_weights(source: Path, config: ModelConfig, trust: bool = False) -> Loaded:
    """The model of a checkpoint directory, on the CPU, in evaluation mode.

    Nothing is unpickled, and no code is run that the directory names, unless ``trust`` is set.

    Args:
        source: As ``save_weights`` left it.
        config: The ``model`` group of the run.
        trust: Allow ``model._target_`` to be imported and called.

    Raises:
        InputError: when the directory is not such a checkpoint, or asks for code and is not trusted.
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
            raise InputError(f"{source}: its model is code of its own ({config._target_}); --trust runs it")
        model = build_custom_model(config, tokenizer, labels)
    else:
        architecture = AutoConfig.from_pretrained(source, trust_remote_code=False)
        options = encoder_options(architecture, Pooling(config.pooling))
        with torch.device("meta"):  # without memory, to compare it with the weights first
            encoder = encoder_class(architecture)(architecture, **options)
            _check_shapes(source, CrossEncoder(encoder, len(labels), config.pooling, config.head_dropout))
        encoder = encoder_class(architecture)(architecture, **options)
        model = CrossEncoder(encoder.float(), len(labels), config.pooling, config.head_dropout)
    try:
        restore(model, source)
    except RuntimeError as error:
        raise InputError(f"{source}: its weights do not fit its config: {str(error).splitlines()[0]}") from error
    return Loaded(model.eval(), tokenizer, labels)


def _check_shapes(source: Path, model: nn.Module) -> None:
    """Compare a model without memory with the header of the weights.

    Raises:
        InputError: naming the first tensor that is missing, too many, or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = tensor_shapes(source / _WEIGHTS)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            told = f"{name} is {found.get(name, 'missing')}, config.json wants {wanted.get(name, 'none')}"
            raise InputError(f"{source}: its weights do not fit its config: {told}")
