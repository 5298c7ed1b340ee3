"""A lock on a directory that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from afqmc.errors import InputError


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Alone in a directory, which is made where there is none; the lock is the operating system's.

    Args:
        directory: Whose ``.lock`` is locked.
        what: As in "another process is at this run".

    Raises:
        InputError: when another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    number = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with os.fdopen(number, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip()
            raise InputError(f"{directory}: another process is at this {what} ({owner or 'unknown'})") from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def is_locked(directory: Path) -> bool:
    """Whether somebody is alone in there at this moment."""
    try:
        number = os.open(directory / ".lock", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    with os.fdopen(number, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
