"""Atomic, checksummed checkpoint directories, written by a background thread.

A run resumes from ``checkpoints/last``. A new checkpoint is written to a temporary directory, flushed to disk,
checksummed and renamed. Its predecessor is kept as ``checkpoints/previous``, in case ``last`` turns out to be damaged.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from afqmc.checkpoint.serialization import clone_to_cpu, read_state, write_state
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.safe_files import read_json, sha256

_SUMS = "checksums.json"
_BEST = "best"


class DamagedError(InputError):
    """A checkpoint that differs from what was written."""


def replace_directory(target: Path, write: Callable[[Path], None], previous: Path | None = None) -> None:
    """Replace a directory atomically: ``write`` fills a temporary directory, which is then renamed to ``target``.

    With ``previous`` the old directory is kept under that name, and there is always a complete one where
    ``CheckpointStore.load`` looks. Without it, ``target`` is missing for the moment between two renames.
    """
    tmp, old = _temp_path(target), previous or target.with_name(f".{target.name}.old")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        write(tmp)
        write_checksums(tmp)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)  # free the space on a full disk
        raise
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    tmp.rename(target)
    _flush(target.parent)
    if previous is None:
        shutil.rmtree(old, ignore_errors=True)


def _temp_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.new")


def write_checksums(directory: Path) -> None:
    """Flush all files of a directory to disk, then write their checksums.

    Files of a subdirectory that has its own checksums are not included.
    """
    sums = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / _SUMS):
        if path.name != _SUMS and path.parent != directory and (path.parent / _SUMS).exists():
            continue
        _flush(path)
        sums[path.relative_to(directory).as_posix()] = sha256(path)
    for folder in [path for path in directory.rglob("*") if path.is_dir()]:
        _flush(folder)
    _write_sums(directory, sums)


def _write_sums(directory: Path, sums: dict[str, str]) -> None:
    tmp = directory / f".{_SUMS}"
    tmp.write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    _flush(tmp)
    tmp.rename(directory / _SUMS)
    _flush(directory)


def add_file(directory: Path, name: str, text: str) -> None:
    """Add or replace a small text file of a directory that has checksums, and its checksum."""
    tmp = directory / f".{name}"
    tmp.write_text(text, encoding="utf-8")
    _flush(tmp)
    tmp.rename(directory / name)  # never written in place: the file may be a hard link
    _write_sums(directory, dict(read_json(directory / _SUMS)) | {name: sha256(directory / name)})


def verify_checksums(directory: Path) -> None:
    """Check a directory against its checksums.

    Raises:
        DamagedError: naming the file that is missing or damaged.
    """
    try:
        sums = read_json(directory / _SUMS)
        for name, expected in sums.items():
            if ".." in Path(name).parts or not (directory / name).resolve().is_relative_to(directory.resolve()):
                raise DamagedError(f"{directory / _SUMS}: names {name}, which is outside of the directory")
            if sha256(directory / name) != expected:
                raise DamagedError(f"{directory / name}: damaged (wrong checksum)")
            if Path(name).name == _SUMS:
                verify_checksums((directory / name).parent)
    except FileNotFoundError as error:
        raise DamagedError(f"{directory}: incomplete ({Path(error.filename).name} is missing)") from error
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{directory}: damaged ({first_line(error)})") from error


def _flush(path: Path) -> None:
    """Flush a file to disk, or the entries of a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hardlink_tree(source: Path, target: Path) -> None:
    """Copy a directory with hard links, or with copies if the file system has no links.

    The files of both directories are the same: replace them, but never write into them.
    """

    def link_or_copy(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(source, target, copy_function=link_or_copy)


class CheckpointStore:
    """The checkpoints that a run resumes from, each with the best weights so far.

    ``save`` copies the state and returns; a thread writes it. Call ``wait`` before the next ``save``.

    Args:
        directory: The directory ``checkpoints`` of a run.
        best: The directory of the best weights.
    """

    def __init__(self, directory: Path, best: Path) -> None:
        self.last, self.previous, self.best = directory / "last", directory / "previous", best
        self._linked = directory / ".best.linked"
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, state: Any) -> None:
        """Start to write a state, with the current best weights.

        Raises:
            OSError: if the best weights cannot be linked, for example on a full disk.
        """
        assert self._thread is None, "call wait() first"
        snapshot = clone_to_cpu(state)

        def work() -> None:
            try:
                replace_directory(self.last, lambda tmp: self._write(tmp, snapshot), self.previous)
            except Exception as error:
                self._failure = error

        shutil.rmtree(self._linked, ignore_errors=True)
        if self.best.exists():
            hardlink_tree(self.best, self._linked)
        self._thread = threading.Thread(target=work, name="checkpoint")
        try:
            self._thread.start()
        except RuntimeError:  # memory or the number of threads is limited: write it before the next step
            self._thread = None
            work()

    def _write(self, tmp: Path, state: Any) -> None:
        write_state(tmp, state)
        with suppress(FileNotFoundError):
            self._linked.rename(tmp / _BEST)

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the last ``save`` is written.

        Raises:
            OSError: or any other error of writing. The previous checkpoint is intact.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def drop_previous(self) -> None:
        """Delete the previous checkpoint, which a complete run no longer needs."""
        shutil.rmtree(self.previous, ignore_errors=True)

    def load(self, on_damage: Callable[[str], None]) -> Any | None:
        """Return the newest intact state, and restore the best weights that were saved with it.

        Args:
            on_damage: Called with a message for each damaged checkpoint.

        Returns:
            The state, or None if no checkpoint was ever completed.

        Raises:
            DamagedError: if there are checkpoints, and all are damaged.
        """
        for path in (_temp_path(self.last), self.last, self.previous):
            if not path.exists():
                continue
            try:
                verify_checksums(path)
                state = read_state(path)
            except InputError as error:
                on_damage(str(error))
                continue
            self._restore(path)
            return state
        if self.last.exists() or self.previous.exists():
            raise DamagedError(f"{self.last.parent}: no intact checkpoint; to start again, remove this directory")
        return None

    def _restore(self, path: Path) -> None:
        """Make ``path`` the last checkpoint, and its copy of the best weights the best weights of the run."""
        if path == _temp_path(self.last):  # complete, but the run ended before it was renamed
            shutil.rmtree(self.previous, ignore_errors=True)
            if self.last.exists():
                self.last.rename(self.previous)
            path.rename(self.last)
            path = self.last
        tmp = _temp_path(self.best)
        shutil.rmtree(tmp, ignore_errors=True)
        if (path / _BEST).exists():
            hardlink_tree(path / _BEST, tmp)
        shutil.rmtree(self.best, ignore_errors=True)
        if tmp.exists():
            tmp.rename(self.best)

    def clear(self) -> None:
        """Delete all checkpoints and the best weights."""
        for path in (self.last, self.previous, self.best, _temp_path(self.last), self._linked):
            shutil.rmtree(path, ignore_errors=True)


class NullCheckpointStore(CheckpointStore):
    """The store for ranks other than 0, which save nothing."""

    def save(self, state: Any) -> None:
        """Do nothing."""

    def drop_previous(self) -> None:
        """Do nothing."""
