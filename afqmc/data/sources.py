"""Files of pairs: on disk, inside a zip, or embedded; found, or refused with the nearest name."""

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

_LOOKED_AT = 10_000  # names of a directory among which the nearest is sought
_HARMLESS, _INFLATES = 64 << 20, 100  # bytes; more than that, and so many times its packed size: a trap, not text

LFS = "is a Git LFS pointer, not the file itself; fetch the file: git lfs pull"

# what a zip that is damaged, encrypted or gone raises, as it is opened or as it is read
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class DataFile:
    """Something to read: a file on disk, a member of a zip, or bytes.

    Attributes:
        name: What messages call it.
        open: Opens its bytes; may be called several times.
        format: How it is written.
        notes: What reading it found that the user should know, such as an encoding other than UTF-8.
    """

    name: str
    open: Callable[[], IO[bytes]]
    format: Format
    notes: dict[str, None] = field(default_factory=dict, compare=False)

    def note(self, text: str) -> None:
        """Add a note, once however often the file is read."""
        self.notes[text] = None

    @classmethod
    def on_disk(cls, path: Path, config: DatasetConfig, key: str = "") -> DataFile:
        """A plain file; ``key`` is where a person named it.

        Raises:
            InputError: when it is missing, a directory, or unreadable.
        """
        name = f"{key}={path}" if key else str(path)
        if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            raise InputError(f"{name}: is a directory; a file was expected")
        try:
            check_regular(path)
        except FileNotFoundError as error:
            raise InputError(f"{name}: no such file{_nearest_file(path)}") from error
        except NotRegularError as error:  # it would be waited for, or read without end
            raise InputError(f"{name}: is not a regular file; a run reads its files several times") from error
        except (OSError, ValueError) as error:  # a ValueError: a NUL in the name
            raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from error
        return cls(str(path), lambda: path.open("rb"), config.format_of(path))

    @classmethod
    def in_zip(cls, archive: Path, member: str, config: DatasetConfig) -> DataFile:
        """A file inside a zip, at any depth, found by the end of its path; it is never extracted.

        Raises:
            InputError: when the zip is damaged or has no such member.
        """
        try:
            with zipfile.ZipFile(archive) as opened:
                names, found = opened.namelist(), find_member(opened, member)
        except UNREADABLE as error:
            raise InputError(
                f"{archive}: {LFS if _is_pointer(archive) else f'not a readable zip ({error})'}"
            ) from error
        if found is None:
            held = [printable(name) for name in names if not name.endswith("/")]
            raise InputError(f"{archive}: no {member} in it; it holds {', '.join(held[:6]) or 'nothing'}")

        def read() -> IO[bytes]:
            with zipfile.ZipFile(archive) as opened:
                return opened.open(found)  # a stream that outlives the ZipFile: the last of the two closes the file

        return cls(f"{archive}/{printable(found.filename)}", read, config.format_of(Path(member)))


def _is_pointer(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return is_lfs_pointer(stream.read(100))
    return False


def _nearest_file(path: Path) -> str:
    """A hint such as ``; did you mean 'train.json'?``, or what is not there of the path."""
    try:
        with os.scandir(path.parent) as entries:
            return suggest(path.name, [entry.name for entry in islice(entries, _LOOKED_AT)])
    except OSError:
        return f" (there is no directory {path.parent})"


def find_member(archive: zipfile.ZipFile, wanted: str) -> zipfile.ZipInfo | None:
    """The file in a zip whose path is, or ends in, the wanted one; the shortest of several.

    Raises:
        zipfile.BadZipFile: where it is there twice, is a link, or would inflate to far more than text does.
    """
    found = (name for name in archive.namelist() if f"/{name}".endswith(f"/{wanted}") and not name.endswith("/"))
    named = sorted((name for name in found if "__MACOSX" not in name), key=len)
    if not named:
        return None
    member, name = archive.getinfo(named[0]), printable(named[0])
    if named.count(named[0]) > 1:
        raise zipfile.BadZipFile(f"{name} is in it twice")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise zipfile.BadZipFile(f"{name} is a symbolic link")
    assert archive.filename is not None
    packed = min(member.compress_size, os.path.getsize(archive.filename))  # it may claim to be more than is there
    if member.file_size > max(_HARMLESS, _INFLATES * packed):
        told = f"{name} would inflate from {packed} to {member.file_size} bytes"
        raise zipfile.BadZipFile(f"{told}; if it is to be trusted, unpack it: dataset.path=DIR")
    return member
