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

log = logging.getLogger(__name__)

_VERSION = 1  # of the layout
_INDEX = "index.json"

Arrays = dict[str, np.ndarray]


def kept(directory: Path, settings: str, columns: Sequence[Sequence[str]], make: Callable[[], Arrays]) -> Arrays:
    """The arrays that ``make`` gives for these texts and settings, read-only and memory-mapped where they are kept.

    An entry is a directory of ``.npy`` files, written aside and renamed; of several processes that make the same one
    the first to finish wins. A damaged entry is found by its checksums and made again.

    Args:
        directory: Of all entries.
        settings: Whatever else the arrays depend on.
        columns: The texts.
        make: Called when there is no sound entry.
    """
    entry = directory / _digest(settings, columns)
    if os.path.exists(entry):  # Path.exists raises for a name that is too long
        try:
            return _open(entry)
        except (OSError, ValueError, EOFError, AttributeError) as error:
            log.warning("%s: damaged (%s); made again", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    arrays = make()
    try:
        _write(entry, arrays)
        return _open(entry)
    except OSError as error:
        log.warning("%s: tokens are not kept for later runs (%s)", directory, error)
        return arrays


def _digest(settings: str, columns: Sequence[Sequence[str]]) -> str:
    """Of lengths and texts: no two sets of columns run together into the same bytes."""
    found = hashlib.sha256(f"{_VERSION} {len(settings)} {settings}".encode())
    for column in columns:
        found.update(np.array([len(text) for text in column], np.int64).tobytes())
        found.update("".join(column).encode())
    return found.hexdigest()[:32]


def _write(entry: Path, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    aside = entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array, allow_pickle=False)
        index = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
        (aside / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        try:
            os.rename(aside, entry)
        except OSError:
            if not entry.exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open(entry: Path) -> Arrays:
    index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
    arrays = {}
    for name, expected in index.items():
        array = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if hashlib.sha256(array).hexdigest() != expected:
            raise ValueError(f"the checksum of {name} is wrong")
        arrays[name] = np.asarray(array)  # a plain view of the map
    return arrays
