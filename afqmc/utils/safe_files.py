"""Read untrusted files: only regular files, up to a maximum size.

Opening a FIFO can block forever, and reading a device such as ``/dev/zero`` exhausts the memory. Every file of a run
directory is opened here, or checked here before a library opens it.
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

# maximum sizes in bytes
SMALL = 1 << 20  # a config, a name
OBJECT = 1 << 24  # a JSON object of metrics or settings
LARGE = 1 << 28  # a file of rows, a tokenizer
_CHUNK = 1 << 20
_MAX_LISTED = 10  # entries in one message
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotRegularError(InputError):
    """A FIFO, device, socket or directory was found where a regular file is expected."""


class TooLargeError(InputError):
    """A file exceeds the maximum size for its kind."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; neither opening nor reading blocks.

    Raises:
        OSError: when it is missing or not readable.
        NotRegularError: for anything but a regular file, or a link to one.
    """
    _check_mode(path, os.stat(path).st_mode)  # checked first: opening a device may have side effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path, limit: int | None = None) -> None:
    """Check a file before a library opens it.

    Raises:
        OSError: when it is missing or not readable.
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
        content = bytearray()
        while chunk := file.read(_CHUNK):  # the size alone is not enough: files under /proc report 0 bytes
            content += chunk
            if len(content) > limit:
                raise _too_large(path, f"more than {limit}", limit)
    return bytes(content)


def read_text(path: Path, limit: int) -> str:
    """Read a UTF-8 file; raises the errors of ``read_bytes``, and UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8")


def read_json(path: Path, limit: int = OBJECT) -> Any:
    """Read a JSON file; raises the errors of ``read_text``, ValueError, and RecursionError for deep nesting."""
    return json.loads(read_text(path, limit))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size as hex; raises the errors of ``open_regular``."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_special(directory: Path, parts: Sequence[Path] | None = None) -> None:
    """Check an untrusted directory before files in it are written, or opened by libraries.

    W&B keeps links to its own logs in the directories of its runs. They may lead outside, since nothing is written to
    them again.

    Args:
        directory: The directory that links must not lead out of.
        parts: Files and directories in it, existing or not, to check; None checks everything in it.

    Raises:
        InputError: naming the links that lead out of the directory, and entries that are neither file nor directory.
    """
    root = directory.resolve()
    paths = _below(directory) if parts is None else (path for part in parts for path in _with_below(part))
    problems = [f"{path}: {reason}; remove it" for path in paths if (reason := _why_special(path, directory, root))]
    if problems:
        more = [f"and {len(problems) - _MAX_LISTED} more"] if len(problems) > _MAX_LISTED else []
        raise InputError("\n".join([*problems[:_MAX_LISTED], *more]))


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        yield from (Path(folder) / name for name in sorted([*folders, *files]))


def _with_below(part: Path) -> Iterator[Path]:
    yield part
    if not part.is_symlink():
        yield from _below(part)


def _why_special(path: Path, directory: Path, root: Path) -> str | None:
    """Return what is wrong with one entry of a directory, or None."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # missing, or removed in the meantime
        return None
    if stat.S_ISLNK(mode):
        if _is_wandb_log(path.relative_to(directory).parts) or Path(os.path.realpath(path)).is_relative_to(root):
            return None
        return f"a link that leads out of {directory}"
    return None if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else f"not a regular file ({_kind(mode)})"


def _is_wandb_log(parts: tuple[str, ...]) -> bool:
    return "wandb" in parts and len(parts) - parts.index("wandb") > 2


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegularError(f"{path}: not a regular file ({_kind(mode)}); it is not opened")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "of another kind")


def _too_large(path: Path, size: str, limit: int) -> TooLargeError:
    return TooLargeError(f"{path}: {size} bytes; at most {limit} are read")
