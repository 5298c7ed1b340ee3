"""Tokenised splits kept on disk: found again by the content of everything they were made from, whole or not at all."""

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

_VERSION = 2  # of the layout
_INDEX = "index.json"

Arrays = dict[str, np.ndarray]

# what reading an entry raises that is damaged, gone or out of reach; recursion: of brackets in what was JSON
_UNUSABLE = (OSError, ValueError, EOFError, AttributeError, RecursionError)


def load_or_build(
    directory: Path, settings: str, columns: Sequence[Sequence[str]], make: Callable[[], Arrays]
) -> Arrays:
    """The arrays that ``make`` gives for these texts and settings, read-only and memory-mapped where they are kept.

    An entry is a directory of ``.npy`` files, written aside and renamed; of several processes that make the same one
    the first to finish wins. A damaged entry is found by its checksums and made again. Where nothing can be kept the
    arrays are given all the same, and a warning says so.

    Args:
        directory: Of all entries.
        settings: Whatever else the arrays depend on.
        columns: The texts.
        make: Called when there is no sound entry.
    """
    entry = directory / _digest(settings, columns)
    if os.path.lexists(entry):  # Path.exists raises where the directory may not be searched
        try:
            return _open(entry)
        except _UNUSABLE as error:
            log.warning("%s: damaged (%s); made again", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    arrays = make()
    try:
        _write(entry, arrays)
        return _open(entry)
    except _UNUSABLE as error:
        log.warning("%s: tokens are not kept for later runs (%s)", directory, error)
        return arrays


def _digest(settings: str, columns: Sequence[Sequence[str]]) -> str:
    found = hashlib.sha256(f"{_VERSION} {len(settings)} {settings}".encode())
    for column in columns:
        update_digest(found, column)
    return found.hexdigest()[:32]


def _write(entry: Path, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    aside = entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array, allow_pickle=False)
        index = {name: _checksum(aside / f"{name}.npy") for name in arrays}
        (aside / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        try:
            os.rename(aside, entry)
        except OSError:
            if not os.path.lexists(entry):  # else another process was quicker
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open(entry: Path) -> Arrays:
    """The arrays of an entry; no byte of a file is interpreted before its checksum has been found right."""
    index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
    if index.keys() != {path.stem for path in entry.glob("*.npy")}:
        raise ValueError(f"{_INDEX} names other arrays than there are")
    arrays = {}
    for name, expected in index.items():
        path = entry / f"{name}.npy"
        if _checksum(path) != expected:
            raise ValueError(f"the checksum of {name} is wrong")
        arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # a plain view of the map
    return arrays


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
