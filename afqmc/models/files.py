"""The local files of a pretrained model: find those in use, detect Git LFS pointers and damaged downloads."""

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
_CONFIG_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARY_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_PREFIX_BYTES = 512  # read to recognise empty files and HTML pages
_MAX_HEADER_BYTES = 100_000_000  # limit of safetensors


def local_directory(name: str) -> Path | None:
    """Return the directory of a model: the named one, or ``checkpoints/best`` of a run directory; None for a hub id.

    Raises:
        InputError: if it is the directory of a fine-tuning run, or of a run that has no weights yet.
    """
    directory = expand_user(name)
    if not os.path.isdir(directory):
        return None
    best = directory / "checkpoints" / "best"
    if not (directory / "config.yaml").exists() or (directory / "config.json").exists():
        return directory
    if not best.is_dir():
        raise InputError(f"model.name_or_path={name}: this run has no weights yet (checkpoints/best)")
    if (best / "labels.json").exists():
        raise InputError(
            f"model.name_or_path={name}: is a fine-tuning run, which has seen labels; only a run of afqmc.pretrain is "
            f"a model; to use its encoder all the same: model.name_or_path={best}"
        )
    return best


def check_lfs(config: ModelConfig, what: str) -> None:
    """Check that the files of a model are not Git LFS pointers.

    Args:
        config: Names a directory, or a hub model that may be in the cache.
        what: ``config``, ``tokenizer`` or ``weights``. The JSON configs are always checked.

    Raises:
        InputError: with the path of the first pointer.
    """
    for path in _used_files(config, what):
        reject_lfs_pointer(path)


def reject_lfs_pointer(path: Path) -> None:
    """Check that a file is not a Git LFS pointer. Unreadable files pass, since their loader reports them.

    Raises:
        InputError: with the path, if it is one.
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
    """Describe the first file of a model that a failed download damaged; "" if none is. See ``check_lfs``."""
    for path in _used_files(config, what):
        try:
            damage = _integrity_error(path)
        except OSError:
            continue  # the error of the loader says more
        if damage:
            return f"{path}: {damage}; the download was probably incomplete: fetch the file again"
    return ""


def _integrity_error(path: Path) -> str:
    """Describe what is wrong with a file, judged by its format and size; "" if nothing is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_PREFIX_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            return "is empty"
        if start[:1] == b"<":  # no format of a model file starts with it
            return "is an HTML or XML page, such as an error or login page"
        if path.suffix == ".safetensors":
            file.seek(0)
            return _safetensors_error(file, size)
        if path.suffix == ".json" and size <= _MAX_HEADER_BYTES:
            file.seek(0)
            return "" if _is_json(file.read()) else "is not valid JSON"
    if path.suffix == ".bin" and start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"ends too early, after {size} bytes"
    return ""


def _safetensors_error(file: BinaryIO, size: int) -> str:
    """Compare the size of a safetensors file with the size that follows from its header."""
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        return "is not a safetensors file"
    if 8 + length > size:
        return f"ends too early, after {size} bytes"
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "has a damaged header"
    return f"has {size} bytes instead of {expected}" if size != expected else ""


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _used_files(config: ModelConfig, what: str) -> list[Path]:
    """Return the existing files that are loaded. Of several kinds of weights or vocabularies, one is preferred."""
    configs = _local_files(config, _CONFIG_FILES)
    if what == "tokenizer":
        return configs + (_local_files(config, ("tokenizer.json",)) or _local_files(config, _VOCABULARY_FILES))
    if what == "weights" and (weights := _local_files(config, WEIGHT_FILES)[:1]):
        index = weights[0]
        if index.suffix == ".json":  # of sharded weights, such as model-00001-of-00002.safetensors
            stem, kind = index.name.split(".")[:2]
            weights += sorted(path for path in index.parent.glob(f"{stem}-*.{kind}") if path.is_file())
        return configs + weights
    return configs


def _local_files(config: ModelConfig, names: tuple[str, ...]) -> list[Path]:
    """Return the paths of the named files that exist in the model's directory or in the hub's cache."""
    name = config.name_or_path
    assert name is not None
    if directory := local_directory(name):
        return [directory / file for file in names if os.path.isfile(directory / file)]
    try:
        cached = [try_to_load_from_cache(name, file, revision=config.revision or "main") for file in names]
    except ValueError:  # not a valid hub id
        return []
    return [Path(path) for path in cached if isinstance(path, str)]
