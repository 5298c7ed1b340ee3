"""Cache of tokenized splits as memory-mapped arrays, under a hash of their texts and tokenizer settings."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from afqmc.data.pairs import update_digest

log = logging.getLogger(__name__)

_LAYOUT_VERSION = 2  # part of the hash: increase it when the files of an entry change
_INDEX = "index.json"

Arrays = dict[str, np.ndarray]

# raised by an entry that is damaged, missing or inaccessible (RecursionError: deeply nested JSON), or cannot be written
_CACHE_ERRORS = (OSError, ValueError, EOFError, AttributeError, RecursionError)


def load_or_build(
    directory: Path, settings: str, columns: Sequence[Sequence[str]], build: Callable[[], Arrays]
) -> Arrays:
    """Return the cached arrays for these texts and settings, building and caching them if necessary.

    Cached arrays are read-only and memory-mapped. An entry is a directory of ``.npy`` files, written under a temporary
    name and renamed; if several processes write the same entry, the first one wins. A damaged entry is detected by its
    checksums and built again. If the cache cannot be written, a warning is logged and the arrays stay in memory.

    Args:
        directory: The cache directory.
        settings: Everything else that the arrays depend on: the tokenizer and its settings.
        columns: The texts, one sequence per sentence field.
        build: Called if there is no intact entry.
    """
    entry = directory / _digest(settings, columns)
    if os.path.lexists(entry):  # Path.exists may raise PermissionError
        try:
            return _open(entry)
        except _CACHE_ERRORS as error:
            log.warning("%s: cannot be read (%s); building it again", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    arrays = build()
    try:
        _write(entry, arrays)
        return _open(entry)  # memory-mapped, so that processes share the memory
    except _CACHE_ERRORS as error:
        log.warning("%s: tokens are not cached for later runs (%s)", directory, error)
        return arrays


def _digest(settings: str, columns: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256(f"{_LAYOUT_VERSION} {len(settings)} {settings}".encode())
    for column in columns:
        update_digest(digest, column)
    return digest.hexdigest()[:32]


def _write(entry: Path, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    tmp = entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}")
    tmp.mkdir()
    try:
        for name, array in arrays.items():
            np.save(tmp / f"{name}.npy", array, allow_pickle=False)
        index = {name: _checksum(tmp / f"{name}.npy") for name in arrays}
        (tmp / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        try:
            os.rename(tmp, entry)
        except OSError:
            if not os.path.lexists(entry):  # otherwise another process has written it first
                raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _open(entry: Path) -> Arrays:
    """Return the arrays of an entry. Each file is checked against its checksum before it is parsed."""
    index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
    if index.keys() != {path.stem for path in entry.glob("*.npy")}:
        raise ValueError(f"{_INDEX} does not list the arrays that exist")
    arrays = {}
    for name, expected in index.items():
        path = entry / f"{name}.npy"
        if _checksum(path) != expected:
            raise ValueError(f"the checksum of {name} is wrong")
        arrays[name] = np.asarray(
            np.load(path, mmap_mode="r", allow_pickle=False)
        )  # asarray drops np.memmap's overhead
    return arrays


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
