"""The files of a pretrained model on this machine: which of them are used, and whether they were fetched whole."""

from __future__ import annotations

import codecs
import json
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import try_to_load_from_cache

from afqmc.models.config import ModelConfig
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user
from afqmc.utils.git_lfs import is_lfs_pointer

WEIGHT_FILES = (  # in order of preference
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


_BEGINNING = 512  # bytes
_HEADER = 100_000_000  # bytes, the most that safetensors allows


def check_lfs(config: ModelConfig, what: str) -> None:
    """Check that the files of a model are not Git LFS pointers.

    Args:
        config: Names a directory, or a model in the hub's cache.
        what: ``config``, ``tokenizer`` or ``weights``; the settings, which all of them need, are checked as well.

    Raises:
        InputError: naming the first such file.
    """
    for path in _used(config, what):
        reject_lfs_pointer(path)


def reject_lfs_pointer(path: Path) -> None:
    """Check that a regular file is not a Git LFS pointer; one that cannot be read is left to its loader.

    Raises:
        InputError: naming it.
    """
    try:
        with path.open("rb") as file:
            first_bytes = file.read(128)
    except OSError:
        return
    if is_lfs_pointer(first_bytes):
        raise InputError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}, "
            "or download the file"
        )


def damaged_file(config: ModelConfig, what: str) -> str:
    """Name the first file of a model that an interrupted or refused download damaged, and how; empty if none."""
    for path in _used(config, what):
        try:
            reason = _damage(path)
        except OSError:
            continue  # the loader's own message says more
        if reason:
            return f"{path}: {reason}; the download was probably incomplete: fetch the file again"
    return ""


def _damage(path: Path) -> str:
    """What is wrong with a file, by its first bytes and its size; empty where that shows nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_BEGINNING).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            return "is empty"
        if start[:1] == b"<":  # no file of a model begins so
            return "is an HTML or XML page, such as an error or login page"
        if path.suffix == ".safetensors":
            file.seek(0)
            return _cut_off(file, size)
        if path.suffix == ".json" and size <= _HEADER:
            file.seek(0)
            return "" if _is_json(file.read()) else "is not valid JSON"
    if path.suffix == ".bin" and start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"ends too early, after {size} bytes"
    return ""


def _cut_off(file: BinaryIO, size: int) -> str:
    """Compare the size of a safetensors file with the size that its header gives."""
    length = int.from_bytes(file.read(8), "little")
    if length > _HEADER:
        return "is not a safetensors file"
    if 8 + length > size:
        return f"ends too early, after {size} bytes"
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "has a damaged header"
    return f"has {size} bytes, and should have {whole}" if size != whole else ""


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _used(config: ModelConfig, what: str) -> list[Path]:
    """The files that are there and read; of several kinds of weights or vocabularies the preferred one."""
    found = _local(config, _SETTINGS)
    if what == "tokenizer":
        return found + (_local(config, ("tokenizer.json",)) or _local(config, _VOCABULARIES))
    if what == "weights" and (weights := _local(config, WEIGHT_FILES)[:1]):
        index = weights[0]
        if index.suffix == ".json":  # model.safetensors.index.json lists model-00001-of-00002.safetensors, ...
            stem, kind = index.name.split(".")[:2]
            weights += sorted(path for path in index.parent.glob(f"{stem}-*.{kind}") if path.is_file())
        return found + weights
    return found


def _local(config: ModelConfig, names: tuple[str, ...]) -> list[Path]:
    """Those of the named files that the directory or the hub's cache holds."""
    name = config.name_or_path
    assert name is not None
    directory = expand_user(name)
    if os.path.isdir(directory):
        return [directory / file for file in names if os.path.isfile(directory / file)]
    try:
        cached = [try_to_load_from_cache(name, file, revision=config.revision or "main") for file in names]
    except ValueError:  # no valid hub id
        return []
    return [Path(path) for path in cached if isinstance(path, str)]
