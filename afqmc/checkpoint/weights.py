"""Weights on disk: safetensors with the model's config and tokenizer, replaced whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from afqmc.checkpoint.store import replace
from afqmc.errors import InputError
from afqmc.inspection import inspect
from afqmc.model.classifier import PairClassifier, encoder_class, encoder_options, is_standard
from afqmc.model.config import ModelConfig, Pooling
from afqmc.model.load import plugged_in
from afqmc.model.tensors import with_duplicates, without_duplicates

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
        if isinstance(model, PairClassifier):
            config = model.encoder.config
            config.id2label = dict(enumerate(labels))
            config.label2id = {name: number for number, name in enumerate(labels)}
            name = type(model.encoder).__name__
            config.architectures = [name.replace("Model", "ForSequenceClassification") if is_standard(model) else name]
            config.save_pretrained(aside)

    replace(target, write)


def restore(model: nn.Module, source: Path) -> None:
    """Put a checkpoint's weights into a model of the same architecture."""
    model.load_state_dict(read_tensors(source))


def read_tensors(source: Path) -> dict[str, Tensor]:
    """A checkpoint's weights, on the CPU, tied ones under each of their names."""
    tied = source / _TIED
    same = json.loads(tied.read_text(encoding="utf-8")) if tied.is_file() else {}
    return with_duplicates(load_file(source / _WEIGHTS), same)


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
    if not (source / _WEIGHTS).is_file() or not (source / _LABELS).is_file():
        raise InputError(
            f"{source}: no weights here ({_WEIGHTS} and {_LABELS}); did the run reach its first evaluation?"
        )
    inspect(source, own_code=config._target_ is not None)
    labels = tuple(json.loads((source / _LABELS).read_text(encoding="utf-8")))
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model: nn.Module
    if config._target_ is not None:
        if not trust:
            raise InputError(f"{source}: its model is code of its own ({config._target_}); --trust runs it")
        model = plugged_in(config, tokenizer, labels)
    else:
        architecture = AutoConfig.from_pretrained(source, trust_remote_code=False)
        encoder = encoder_class(architecture)(architecture, **encoder_options(architecture, Pooling(config.pooling)))
        model = PairClassifier(encoder.float(), len(labels), config.pooling, config.head_dropout)
    try:
        restore(model, source)
    except RuntimeError as error:
        raise InputError(f"{source}: its weights do not fit its config: {str(error).splitlines()[0]}") from error
    return Loaded(model.eval(), tokenizer, labels)
