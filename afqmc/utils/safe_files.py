"""Read files that may come from anybody: only regular files, of a limited size, in pieces.

A FIFO would be waited for without end, and a device such as ``/dev/zero`` read until memory is used up. Every file of
a run directory is opened here, or checked here before a library opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from afqmc.utils.errors import InputError

SMALL = 1 << 20  # bytes: a config, a name
OBJECT = 1 << 24  # bytes: a JSON object of figures or settings
LARGE = 1 << 28  # bytes: a file of rows, a tokenizer
_PIECE = 1 << 20
_LISTED = 10  # entries in one message
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


class NotRegularError(InputError):
    """A FIFO, device, socket or directory where a file is expected."""


class TooLargeError(InputError):
    """A file larger than its kind may be."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; opening and reading never wait for another process.

    Raises:
        OSError: when it is missing or may not be read.
        NotRegularError: for anything but a regular file, or a link to one.
    """
    _refuse_other(path, os.stat(path).st_mode)  # opening a device may already have an effect
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_other(path, os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_regular(path: Path, limit: int | None = None) -> None:
    """Check a file that a library will open.

    Raises:
        OSError: when it is missing or may not be read.
        InputError: when it is not regular, or larger than ``limit``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if limit is not None and size > limit:
        raise _too_large(path, str(size), limit)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        OSError: when it is missing or cannot be read.
        InputError: when it is not regular, or larger.
    """
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise _too_large(path, str(size), limit)
        pieces, count = [], 0
        while piece := file.read(_PIECE):  # some files of /proc say that they have 0 bytes
            pieces.append(piece)
            if (count := count + len(piece)) > limit:
                raise _too_large(path, f"more than {limit}", limit)
    return b"".join(pieces)


def read_text(path: Path, limit: int) -> str:
    """Read a whole UTF-8 text; raises as ``read_bytes`` does, and UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8")


def read_json(path: Path, limit: int = OBJECT) -> Any:
    """Read a JSON file; raises as ``read_text`` does, ValueError, and RecursionError for what is nested too deep."""
    return json.loads(read_text(path, limit))


def sha256(path: Path) -> str:
    """Return the checksum of a file of any size; raises as ``open_regular`` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_special(directory: Path, parts: Sequence[Path] | None = None) -> None:
    """Check a directory before files in it are written, or opened by libraries.

    W&B keeps links to its own logs in the directories of its runs; nothing is written to those again.

    Args:
        directory: What links must not lead out of.
        parts: Files and directories in it, existing or not; None checks everything in it.

    Raises:
        InputError: naming the links that lead out of the directory, and what is neither a file nor a directory.
    """
    root = directory.resolve()
    below = _below(directory) if parts is None else (path for part in parts for path in _with_below(part))
    found = [f"{path}: {why}; remove it" for path in below if (why := _why_special(path, directory, root))]
    if found:
        more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        raise InputError("\n".join([*found[:_LISTED], *more]))


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        yield from (Path(folder) / name for name in sorted([*folders, *files]))


def _with_below(part: Path) -> Iterator[Path]:
    yield part
    if not part.is_symlink():
        yield from _below(part)


def _why_special(path: Path, directory: Path, root: Path) -> str | None:
    """Return what is wrong with one entry of a directory."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # it is missing, or was removed just now
        return None
    if stat.S_ISLNK(mode):
        inside = _is_log_of_wandb(path.relative_to(directory).parts) or Path(os.path.realpath(path)).is_relative_to(
            root
        )
        return None if inside else f"a link that leads out of {directory}"
    return None if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else f"not a regular file ({_kind(mode)})"


def _is_log_of_wandb(parts: tuple[str, ...]) -> bool:
    return "wandb" in parts and len(parts) - parts.index("wandb") > 2


def _refuse_other(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegularError(f"{path}: not a regular file ({_kind(mode)}); it is not opened")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "of another kind")


def _too_large(path: Path, size: str, limit: int) -> TooLargeError:
    return TooLargeError(f"{path}: {size} bytes; at most {limit} are read")
