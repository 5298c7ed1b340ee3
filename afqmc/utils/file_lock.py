"""A lock on a directory that ends with its process, however that ends."""

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
    """The file system has no locks of any kind."""


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Alone in a directory, which is made where there is none; the lock is the operating system's.

    Args:
        directory: Whose ``.lock`` is locked.
        what: As in "another process is at this run".

    Raises:
        InputError: when another process has it, or no lock can be made there.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be created ({error.strerror}); a {what} needs a directory that it can write to"
        ) from error
    with os.fdopen(number, "r+", encoding="utf-8") as file:
        try:
            lock(number, path)
        except BlockingIOError as error:
            owner = file.read().strip()
            raise InputError(f"{directory}: another process is at this {what} ({owner or 'unknown'})") from error
        _sign(number, path)
        yield


def is_locked(directory: Path) -> bool:
    """Whether a process holds the lock of a directory; never where the file system has no locks."""
    path = directory / ".lock"
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # also on a read-only file system
    except FileNotFoundError:
        return False
    try:
        lock(number, path, shared=True)
    except BlockingIOError:
        return True
    except NoLocksError:
        return False
    finally:
        os.close(number)
    return False


def lock(number: int, path: Path, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed: by flock, or by a lock of its open file description where flock is missing.

    Unlike a POSIX lock of the process, neither is lost when the process opens and closes the file a second time.

    Args:
        number: The file descriptor; open for writing unless the lock is shared.
        path: For messages.
        shared: Exclude exclusive locks only.
        wait: Until the lock is free.

    Raises:
        BlockingIOError: when the file is locked already.
        NoLocksError: when the file system supports neither kind.
    """
    try:
        fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise InputError(f"{path}: cannot be locked ({error.strerror}); {_REMEDY}") from error
        _lock_description(number, path, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, wait)


def _lock_description(number: int, path: Path, kind: int, wait: bool) -> None:
    whole = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)  # struct flock: all bytes; no process id for this kind
    try:
        fcntl.fcntl(number, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, whole)
    except (AttributeError, OSError) as error:  # only Linux has the constants
        if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(error.errno, "locked by another process") from error
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise NoLocksError(f"{path}: this file system does not support file locks{why}; {_REMEDY}") from error


def _sign(number: int, path: Path) -> None:
    """Write who holds the lock, for the message to the others."""
    try:
        os.ftruncate(number, 0)
        os.pwrite(number, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some space there") from error
