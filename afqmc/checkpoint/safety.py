"""Checks an untrusted checkpoint before a library reads it, and rejects whatever could run code.

With ``trust_remote_code=False`` ``transformers`` does not run code in the directory, with two exceptions that are
checked here: it fetches and imports an attention implementation that config.json names, and it accepts any of its
classes as tokenizer class, including one that asks on the terminal whether to run the code. Pickles are never opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedTokenizerBase

from afqmc.models.architecture import is_text_encoder
from afqmc.models.files import reject_lfs_pointer
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import LARGE, check_regular, open_regular, read_json

_MAX_HEADER = 100_000_000  # bytes, the limit of safetensors
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")  # of any size; only model.safetensors is opened
_MAX_DEPTH = 32
_ATTENTIONS = (None, "eager", "sdpa")  # part of transformers


def check_untrusted(source: Path, own_code: bool) -> None:
    """Check that a checkpoint directory holds only what ``afqmc.checkpoint.weights.save_weights`` writes.

    Args:
        source: A directory with weights and labels.
        own_code: Whether the model is a custom one, whose architecture is unknown here.

    Raises:
        InputError: naming the file.
    """
    for path in source.rglob("*"):  # libraries choose the files that they open by name
        if not path.is_dir():
            check_regular(path, None if path.suffix in _WEIGHT_FILES else LARGE)
            reject_lfs_pointer(path)
    check_labels(source / "labels.json")
    weights = source / "model.safetensors"
    with as_input_error(f"{weights}: not readable as safetensors; other formats are not read"):
        shapes = tensor_shapes(weights)
        with safe_open(weights, "pt") as opened:
            opened.keys()
    for path in (source / "config.json", source / "tokenizer_config.json"):
        if path.exists():
            _check_settings(path)
    if not own_code:
        _check_counts(source, shapes)
        with as_input_error(f"{source / 'config.json'}: not usable"):
            architecture = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
            if not is_text_encoder(
                type(architecture)()
            ):  # of the type with its defaults: this config could have any key
                raise InputError(f"{source / 'config.json'}: a {architecture.model_type} is not a text encoder")


def tensor_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name, from the header of a safetensors file.

    Raises:
        ValueError: if there is no header, or the file does not end where it says.
    """
    with open_regular(weights) as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, size):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0) != size:
        raise ValueError("the file does not end where its header says")
    return {str(name): tuple(entry["shape"]) for name, entry in header.items()}


def _check_counts(source: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Check the counts in config.json against weights and labels: a library would allocate whatever it asks for.

    Raises:
        InputError: naming a count that does not fit.
    """
    path, labels = source / "config.json", len(_read(source / "labels.json"))
    for key, value in _entries(_read(path), path):
        if isinstance(value, int) and re.search("layer|block|group|expert|depth|stage", key) and value > len(shapes):
            raise InputError(f"{path}: {key}={value}: the weights have {len(shapes)} tensors")
        count = len(value) if key in ("id2label", "label2id") and isinstance(value, dict) else value
        if key in ("num_labels", "_num_labels", "id2label", "label2id") and count not in (None, labels):
            raise InputError(f"{path}: {key} counts {count} classes, labels.json {labels}")


def check_labels(path: Path) -> None:
    """Check that a file is a list of at least two different label names.

    Raises:
        InputError: if it is not.
    """
    names = _read(path)
    are_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_texts or len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"{path}: must be a list of at least two different names")


def _check_settings(path: Path) -> None:
    """Check the keys of config.json and tokenizer_config.json that make a library load more than data."""
    settings = _read(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: must be a JSON object")
    for key, value in _entries(settings, path):
        if "_implementation" in key and value not in _ATTENTIONS:
            raise InputError(f"{path}: {key}={value}: would be downloaded and run as code; allowed: eager, sdpa")
    if "configuration_files" in settings:
        raise InputError(f"{path}: configuration_files: not allowed, since it replaces this file")
    for name in _tokenizer_class_names(settings.get("tokenizer_class"), path):
        target = getattr(transformers, name, None)  # for an unknown name, the library uses a generic tokenizer
        if target is not None and not (isinstance(target, type) and issubclass(target, PreTrainedTokenizerBase)):
            raise InputError(f"{path}: tokenizer_class={settings['tokenizer_class']}: not a tokenizer")


def _tokenizer_class_names(name: Any, path: Path) -> Iterator[str]:
    """Yield all names under which the library looks for a tokenizer class: it adds and removes ``Fast``."""
    if name is None:
        return
    if not isinstance(name, str):
        raise InputError(f"{path}: tokenizer_class={name}: must be a text")
    yield name
    while name.endswith("Fast"):
        name = name.removesuffix("Fast")
        yield name
    yield f"{name}Fast"


def _read(path: Path) -> Any:
    with as_input_error(f"{path}: not readable as JSON"):
        return read_json(path)


def _entries(node: Any, path: Path, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every (key, value) at any depth; the key of a list item is empty."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{path}: nested deeper than {_MAX_DEPTH} levels")
    items = node.items() if isinstance(node, dict) else (("", value) for value in node)
    for key, value in items:
        yield key, value
        if isinstance(value, dict | list):
            yield from _entries(value, path, depth + 1)
