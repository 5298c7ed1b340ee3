"""A file of JSON lines that is only appended to, in which each entry has the hash of the one before it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from typing import Any

from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import lock
from afqmc.utils.safe_files import LARGE, read_bytes

Entry = dict[str, Any]

_DIGEST, _PREVIOUS = "sha256", "previous"


def read_chain(path: Path) -> list[Entry]:
    """Return the entries of a chain, none if there is no file.

    An entry that was edited, inserted or removed is found, unless it was removed from the end.

    Raises:
        InputError: if the file cannot be read, or naming the first line that does not follow from those before it.
    """
    try:
        return _parse(read_bytes(path, LARGE), path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def append_entry(path: Path, make: Callable[[list[Entry]], Entry]) -> Entry:
    """Append an entry, flush it to disk, and return it. Other processes wait meanwhile.

    Args:
        path: The file; created if it is missing.
        make: Returns the content of the new entry from all entries before it.

    Raises:
        InputError: if the file is damaged, cannot be written or cannot be locked; also any that ``make`` raises.
    """
    with _open_locked(path) as file:
        entries = _parse(file.read(), path)
        entry = make(entries) | {_PREVIOUS: entries[-1][_DIGEST] if entries else None}
        entry[_DIGEST] = _digest(entry)
        _write(file.fileno(), _as_bytes(entry) + b"\n", path)
    return entry


def _write(descriptor: int, line: bytes, path: Path) -> None:
    """Append a line and flush it to disk; a line that does not fit on the disk is removed again."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, size)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def _open_locked(path: Path) -> Iterator[BufferedRandom]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "r+b") as file:
        lock(descriptor, path, wait=True)
        yield file


def _parse(content: bytes, path: Path) -> list[Entry]:
    entries: list[Entry] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            entry = json.loads(line)
            is_intact = entry[_DIGEST] == _digest(entry) and entry[_PREVIOUS] == (
                entries[-1][_DIGEST] if entries else None
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            is_intact = False
        if not is_intact:
            raise InputError(f"{path}: damaged: line {number} was edited, or a line before it was edited or removed")
        entries.append(entry)
    return entries


def _digest(entry: Entry) -> str:
    content = {key: value for key, value in entry.items() if key != _DIGEST}
    return sha256(_as_bytes(content, sort_keys=True)).hexdigest()


def _as_bytes(entry: Entry, sort_keys: bool = False) -> bytes:
    text = json.dumps(entry, sort_keys=sort_keys, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # undecodable bytes of file names, as JSON escapes
