"""A checkpoint from anybody, looked at before a library reads it: what could run code is refused.

``transformers`` keeps away from code that lies in a directory when it is told to, with exceptions that are held here:
an attention may be named that it then fetches from the hub and imports, and a tokenizer class may be any of its own
classes, such as one that asks on the terminal whether to run the code after all. Pickles are no matter: nothing opens
them.
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

_HEADER = 100_000_000  # bytes, as safetensors itself has it
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")  # of any size; nothing but model.safetensors is opened
_DEEPEST = 32
_ATTENTIONS = (None, "eager", "sdpa")  # what the library has in itself


def check_untrusted(source: Path, own_code: bool) -> None:
    """Hold a checkpoint directory to what ``afqmc.checkpoint.save_weights`` may have left there.

    Args:
        source: The directory; its weights and labels are there.
        own_code: Whether the model is a plug-in, of whose architecture nothing is known here.

    Raises:
        InputError: naming the file.
    """
    for path in source.rglob("*"):  # a library picks those that it opens by their names
        if not path.is_dir():
            check_regular(path, None if path.suffix in _WEIGHT_FILES else LARGE)
            reject_lfs_pointer(path)
    check_labels(source / "labels.json")
    weights = source / "model.safetensors"
    with as_input_error(f"{weights}: not readable as safetensors; nothing else is read"):
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
            if not is_text_encoder(type(architecture)()):  # the kind, not this one: any config takes any key
                raise InputError(f"{source / 'config.json'}: a {architecture.model_type} is no text encoder")


def tensor_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a safetensors file, from its header alone.

    Raises:
        ValueError: when there is no header, or the file does not end where it says.
    """
    with open_regular(weights) as file:
        whole, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if length > min(_HEADER, whole):
            raise ValueError(f"a header of {length} bytes in a file of {whole}")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0) != whole:
        raise ValueError("the file does not end where its header says")
    return {str(name): tuple(entry["shape"]) for name, entry in header.items()}


def _check_counts(source: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare config.json with the weights and labels, since a library builds as many layers and classes as it says.

    Raises:
        InputError: naming a count that the weights cannot hold.
    """
    path, labels = source / "config.json", len(_read(source / "labels.json"))
    for key, value in _entries(_read(path), path):
        if isinstance(value, int) and re.search("layer|block|group|expert|depth|stage", key) and value > len(shapes):
            raise InputError(f"{path}: {key}={value}: the weights have {len(shapes)} tensors")
        count = len(value) if key in ("id2label", "label2id") and isinstance(value, dict) else value
        if key in ("num_labels", "_num_labels", "id2label", "label2id") and count not in (None, labels):
            raise InputError(f"{path}: {key} counts {count} classes, labels.json {labels}")


def check_labels(path: Path) -> None:
    """Two names or more, in class order, each once.

    Raises:
        InputError: for anything else.
    """
    names = _read(path)
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"{path}: must be a list of two names or more, each once")


def _check_settings(path: Path) -> None:
    """Those of config.json and tokenizer_config.json by which more than data is loaded."""
    settings = _read(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: must be a JSON object")
    for key, value in _entries(settings, path):
        if "_implementation" in key and value not in _ATTENTIONS:
            raise InputError(f"{path}: {key}={value}: would be fetched and run as code; legal: eager, sdpa")
    if "configuration_files" in settings:
        raise InputError(f"{path}: configuration_files: other configs are not read in its place")
    for name in _spellings(settings.get("tokenizer_class"), path):
        found = getattr(transformers, name, None)  # where it has none, the library takes its general tokenizer
        if found is not None and not (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)):
            raise InputError(f"{path}: tokenizer_class={settings['tokenizer_class']}: is no tokenizer")


def _spellings(name: Any, path: Path) -> Iterator[str]:
    """All names under which the library looks for a tokenizer class: it adds and takes away ``Fast``."""
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
    """Every key with its value, at any depth; those of a list have no name."""
    if depth > _DEEPEST:
        raise InputError(f"{path}: nested deeper than {_DEEPEST} levels")
    items = node.items() if isinstance(node, dict) else (("", value) for value in node)
    for key, value in items:
        yield key, value
        if isinstance(value, dict | list):
            yield from _entries(value, path, depth + 1)
