"""Data files on disk, inside a zip, or embedded; errors for a missing file suggest the nearest name."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from afqmc.data.config import DatasetConfig, Format
from afqmc.utils.errors import InputError, printable, suggest
from afqmc.utils.git_lfs import is_lfs_pointer
from afqmc.utils.safe_files import NotRegularError, check_regular

_MAX_ENTRIES = 10_000  # of a directory that are searched for a similar name
# A zip member is a decompression bomb if it has more bytes than this, and more than this many times its packed size.
_HARMLESS_BYTES, _MAX_RATIO = 64 << 20, 100

LFS = "is a Git LFS pointer, not the file itself; fetch the file: git lfs pull"

# raised on opening or reading a zip that is damaged, encrypted or missing
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class DataFile:
    """A file on disk, a member of a zip, or bytes in memory.

    Attributes:
        name: What messages call it.
        open: Opens its bytes; may be called several times.
        format: The file format.
        notes: Remarks for the user from reading it, such as an encoding other than UTF-8; a dict for its order.
    """

    name: str
    open: Callable[[], IO[bytes]]
    format: Format
    notes: dict[str, None] = field(default_factory=dict, compare=False)

    def note(self, text: str) -> None:
        """Add a note, unless an earlier pass over the file has added it."""
        self.notes[text] = None

    @classmethod
    def on_disk(cls, path: Path, config: DatasetConfig, key: str = "") -> DataFile:
        """Return a regular file; ``key`` is the config key that names it, for messages.

        Raises:
            InputError: if it is missing, a directory, or unreadable.
        """
        name = f"{key}={path}" if key else str(path)
        if os.path.isdir(path):  # Path.is_dir raises OSError for an overlong name
            raise InputError(f"{name}: is a directory; a file was expected")
        try:
            check_regular(path)
        except FileNotFoundError as error:
            raise InputError(f"{name}: no such file{_nearest_file(path)}") from error
        except NotRegularError as error:  # reading a pipe or device could block or never end
            raise InputError(f"{name}: is not a regular file; a run reads its files several times") from error
        except (OSError, ValueError) as error:  # ValueError for a NUL in the name
            raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from error
        return cls(str(path), lambda: path.open("rb"), config.format_of(path))

    @classmethod
    def in_zip(cls, archive: Path, member: str, config: DatasetConfig) -> DataFile:
        """Return the member of a zip whose path ends in ``member``. It is read as a stream, never extracted.

        Raises:
            InputError: if the zip is damaged or has no such member.
        """
        try:
            with zipfile.ZipFile(archive) as opened:
                names, info = opened.namelist(), find_member(opened, member)
        except READ_ERRORS as error:
            raise InputError(
                f"{archive}: {LFS if _is_pointer(archive) else f'not a readable zip ({error})'}"
            ) from error
        if info is None:
            files = [printable(name) for name in names if not name.endswith("/")]
            raise InputError(f"{archive}: no {member} in it; it holds {', '.join(files[:6]) or 'nothing'}")

        def read() -> IO[bytes]:
            with zipfile.ZipFile(archive) as opened:
                return opened.open(info)  # the stream stays usable: the file closes once both have been closed

        return cls(f"{archive}/{printable(info.filename)}", read, config.format_of(Path(member)))


def _is_pointer(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return is_lfs_pointer(stream.read(100))
    return False


def _nearest_file(path: Path) -> str:
    """Return a hint such as ``; did you mean 'train.json'?``, or that the directory is missing."""
    try:
        with os.scandir(path.parent) as entries:
            return suggest(path.name, [entry.name for entry in islice(entries, _MAX_ENTRIES)])
    except OSError:
        return f" (there is no directory {path.parent})"


def find_member(archive: zipfile.ZipFile, path: str) -> zipfile.ZipInfo | None:
    """Return the file in a zip whose path equals or ends in ``path``; the shortest if there are several.

    Raises:
        zipfile.BadZipFile: for a duplicate name, a symbolic link, or a decompression bomb.
    """
    matches = (name for name in archive.namelist() if f"/{name}".endswith(f"/{path}") and not name.endswith("/"))
    names = sorted((name for name in matches if "__MACOSX" not in name), key=len)
    if not names:
        return None
    member, name = archive.getinfo(names[0]), printable(names[0])
    if names.count(names[0]) > 1:
        raise zipfile.BadZipFile(f"{name} is in it twice")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise zipfile.BadZipFile(f"{name} is a symbolic link")
    assert archive.filename is not None
    packed = min(member.compress_size, os.path.getsize(archive.filename))  # the claimed size may exceed that of the zip
    if member.file_size > max(_HARMLESS_BYTES, _MAX_RATIO * packed):
        raise zipfile.BadZipFile(
            f"{name} would inflate from {packed} to {member.file_size} bytes; if you trust it, unpack it and set "
            "dataset.path=DIR"
        )
    return member
