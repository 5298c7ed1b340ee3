"""Locks on directories. The operating system releases them when the process ends, even if it is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from afqmc.utils.errors import InputError

_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
_REMEDY = "choose another file system (hydra.run.dir, hydra.sweep.dir), or mount this one with locks (Lustre: -o flock)"


class NoLocksError(InputError):
    """The file system supports no kind of file lock."""


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a directory, which is created if it is missing.

    Args:
        directory: The directory; its file ``.lock`` is locked.
        what: The noun for messages: "run" or "sweep".

    Raises:
        InputError: when another process holds the lock, or the file system does not support locks.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be created ({error.strerror}); a {what} needs a writable directory"
        ) from error
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        try:
            lock(descriptor, path)
        except BlockingIOError as error:
            owner = file.read().strip()
            raise InputError(f"{directory}: another process is using this {what} ({owner or 'unknown'})") from error
        _write_owner(descriptor, path)
        yield


def is_locked(directory: Path) -> bool:
    """Return whether a process holds the lock of a directory; False if the file system does not support locks."""
    path = directory / ".lock"
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        )  # a shared lock works on a read-only file system too
    except FileNotFoundError:
        return False
    try:
        lock(descriptor, path, shared=True)
    except BlockingIOError:
        return True
    except NoLocksError:
        return False
    finally:
        os.close(descriptor)
    return False


def lock(descriptor: int, path: Path, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed, with flock, or with an open file description lock if flock is unsupported.

    Unlike a POSIX lock, neither kind is lost when the process opens and closes the same file again.

    Args:
        descriptor: The file descriptor, open for writing unless ``shared``.
        path: The path, for messages.
        shared: Take a shared lock, which excludes exclusive locks only.
        wait: Wait until the lock is free instead of raising BlockingIOError.

    Raises:
        BlockingIOError: when the file is locked already.
        NoLocksError: when the file system supports neither kind.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise InputError(f"{path}: cannot be locked ({error.strerror}); {_REMEDY}") from error
        _lock_description(descriptor, path, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, wait)


def _lock_description(descriptor: int, path: Path, kind: int, wait: bool) -> None:
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)  # struct flock: the whole file; pid must be 0
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
    except (AttributeError, OSError) as error:  # AttributeError: only Linux has the constants
        if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(error.errno, "locked by another process") from error
        reason = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise NoLocksError(f"{path}: this file system does not support file locks{reason}; {_REMEDY}") from error


def _write_owner(descriptor: int, path: Path) -> None:
    """Write the owner into the lock file, for the message of other processes."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some space there") from error
