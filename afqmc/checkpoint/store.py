"""Directories that are replaced whole or not at all, known by their checksums, written in the background.

``checkpoints/last`` is what a run goes on from. A new one is written beside it, flushed to the disk, checksummed and
renamed; the one before it stays as ``checkpoints/previous``, to go on from where ``last`` turns out to be damaged.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from afqmc.checkpoint.serialization import clone_to_cpu, read_state, write_state
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.safe_files import read_json, sha256

_SUMS = "checksums.json"
_BEST = "best"


class DamagedError(InputError):
    """A checkpoint that is not what was written."""


def replace_directory(target: Path, write: Callable[[Path], None], previous: Optional[Path] = None) -> None:
    """Make ``target`` anew: ``write`` fills a directory beside it, which then takes its name.

    With ``previous`` the one before is kept under that name, and at every moment there is a whole one where
    ``CheckpointStore.load`` looks; without, ``target`` is missing between two renamings.
    """
    aside, old = _aside(target), previous or target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside)
        write_checksums(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk needs the room
        raise
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    aside.rename(target)
    _flush(target.parent)
    if previous is None:
        shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.new")


def write_checksums(directory: Path) -> None:
    """Flush all files of a directory to the disk and write their checksums down, last of all.

    A directory within it that is sealed already is known by its own checksums.
    """
    sums = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / _SUMS):
        if path.name != _SUMS and path.parent != directory and (path.parent / _SUMS).exists():
            continue
        _flush(path)
        sums[path.relative_to(directory).as_posix()] = sha256(path)
    aside = directory / f".{_SUMS}"
    aside.write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    _flush(aside)
    aside.rename(directory / _SUMS)
    for folder in [path for path in directory.rglob("*") if path.is_dir()]:
        _flush(folder)
    _flush(directory)


def verify_checksums(directory: Path) -> None:
    """Hold a directory to its checksums.

    Raises:
        DamagedError: naming the file that is missing or is not what was written.
    """
    try:
        sums = read_json(directory / _SUMS)
        for name, expected in sums.items():
            if ".." in Path(name).parts or not (directory / name).resolve().is_relative_to(directory.resolve()):
                raise DamagedError(f"{directory / _SUMS}: names {name}, which is not within")
            if sha256(directory / name) != expected:
                raise DamagedError(f"{directory / name}: damaged (its checksum is not the one written down)")
            if Path(name).name == _SUMS:
                verify_checksums((directory / name).parent)
    except FileNotFoundError as error:
        raise DamagedError(f"{directory}: incomplete ({Path(error.filename).name} is missing)") from error
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{directory}: damaged ({first_line(error)})") from error


def _flush(path: Path) -> None:
    """To the disk; a directory's names too."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def hardlink_tree(source: Path, target: Path) -> None:
    """The same files under another directory: hard links, which cost no room, or copies where there are none.

    Whoever replaces such a file must put a new one in its place, and never write into it.
    """

    def one(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(source, target, copy_function=one)


class CheckpointStore:
    """The checkpoints of a run to go on from, and its best weights with them.

    Saving copies the state and returns; a thread writes it. One is written at a time, and must be waited for before the
    next.

    Args:
        directory: ``checkpoints`` of a run.
        best: The best weights; they become part of each checkpoint.
    """

    def __init__(self, directory: Path, best: Path) -> None:
        self.last, self.previous, self.best = directory / "last", directory / "previous", best
        self._linked = directory / ".best.linked"
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, state: Any) -> None:
        """Begin to write a state down, with the best weights as they are now.

        Raises:
            OSError: when there is no room even for links to the best weights.
        """
        assert self._thread is None, "wait for the one before"
        frozen = clone_to_cpu(state)

        def work() -> None:
            try:
                replace_directory(self.last, lambda aside: self._write(aside, frozen), self.previous)
            except Exception as error:
                self._failure = error

        shutil.rmtree(self._linked, ignore_errors=True)
        if self.best.exists():
            hardlink_tree(self.best, self._linked)
        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def _write(self, aside: Path, state: Any) -> None:
        write_state(aside, state)
        with suppress(FileNotFoundError):
            self._linked.rename(aside / _BEST)

    @property
    def is_writing(self) -> bool:
        """Whether a thread is at it."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until what was begun is written.

        Raises:
            OSError: or whatever kept it from being written; the checkpoint before it is still there.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def drop_previous(self) -> None:
        """One is enough once a run is complete."""
        shutil.rmtree(self.previous, ignore_errors=True)

    def load(self, complain: Callable[[str], None]) -> Any | None:
        """The newest sound state, None where none was ever whole; the best weights are put back as they were then.

        Args:
            complain: Told of each that is damaged.

        Raises:
            DamagedError: when there are such, and not one is sound.
        """
        for found in (_aside(self.last), self.last, self.previous):
            if not found.exists():
                continue
            try:
                verify_checksums(found)
                state = read_state(found)
            except InputError as error:
                complain(str(error))
                continue
            self._put_back(found)
            return state
        if self.last.exists() or self.previous.exists():
            raise DamagedError(f"{self.last.parent}: no sound checkpoint; to begin anew, remove this directory")
        return None

    def _put_back(self, found: Path) -> None:
        if found == _aside(self.last):  # whole, and only the renaming was missing
            shutil.rmtree(self.previous, ignore_errors=True)
            if self.last.exists():
                self.last.rename(self.previous)
            found.rename(self.last)
            found = self.last
        aside = _aside(self.best)
        shutil.rmtree(aside, ignore_errors=True)
        if (found / _BEST).exists():
            hardlink_tree(found / _BEST, aside)
        shutil.rmtree(self.best, ignore_errors=True)
        if aside.exists():
            aside.rename(self.best)

    def clear(self) -> None:
        """Nothing is left: the run begins anew."""
        for path in (self.last, self.previous, self.best, _aside(self.last), self._linked):
            shutil.rmtree(path, ignore_errors=True)


class NullCheckpointStore(CheckpointStore):
    """The store for ranks other than 0, which save nothing."""

    def save(self, state: Any) -> None:
        """Do nothing."""

    def drop_previous(self) -> None:
        """Do nothing."""
