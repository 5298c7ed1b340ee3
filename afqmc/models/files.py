"""The files of a pretrained model on this machine: which of them are used, and whether Git LFS has fetched them."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from afqmc.models.config import ModelConfig
from afqmc.utils.errors import InputError
from afqmc.utils.files import expanded
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


def check_lfs(config: ModelConfig, what: str) -> None:
    """Check that the files of a model are not Git LFS pointers.

    Args:
        config: Names a directory, or a model in the hub's cache.
        what: ``config``, ``tokenizer`` or ``weights``; the settings, which all of them need, are checked as well.

    Raises:
        InputError: naming the first such file.
    """
    for path in _used(config, what):
        refuse_pointer(path)


def refuse_pointer(path: Path) -> None:
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
    directory = expanded(name)
    if os.path.isdir(directory):
        return [directory / file for file in names if os.path.isfile(directory / file)]
    try:
        cached = [try_to_load_from_cache(name, file, revision=config.revision or "main") for file in names]
    except ValueError:  # no valid hub id
        return []
    return [Path(path) for path in cached if isinstance(path, str)]
