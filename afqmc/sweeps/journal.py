"""The journal file of a search in Optuna's format, robust to processes that are killed while writing."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from afqmc.utils.errors import InputError, first_line
from afqmc.utils.file_lock import lock

log = logging.getLogger(__name__)

_LOCK = ".journal.lock"
_BLOCK = 4096
_REMEDY = "restore the file from a copy, or start a new search with another sweep.name"


class Journal(JournalFileBackend):
    """Optuna's journal backend with a lock that ends with its process, and errors that name file and line.

    Args:
        path: The journal file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path, file_lock = path, _Lock(path)
        super().__init__(str(path), file_lock)
        file_lock.acquire()  # drops an incomplete record of a killed process
        file_lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from the given number on.

        Raises:
            InputError: If a record before the last is damaged.
        """
        line = log_number_from + 1
        try:
            for record in super().read_logs(log_number_from):
                if not (isinstance(record, dict) and "op_code" in record and "worker_id" in record):
                    raise ValueError("not an Optuna record")
                yield record
                line += 1
        except ValueError as error:
            raise InputError(f"{self.path}:{line}: damaged record ({first_line(error)}); {_REMEDY}") from error


class _Lock(JournalFileOpenLock):
    """An operating-system lock. Optuna's own locks are files, which remain after their process was killed."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self.journal, self.path = journal, journal.with_name(_LOCK)
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock. An incomplete last record is dropped, because its writer must be dead."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            lock(descriptor, self.path, wait=True)
            _drop_incomplete_record(self.journal)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Unlock by closing the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _drop_incomplete_record(journal: Path) -> None:
    """Truncate the file after its last complete record; a crash or a full disk may leave an incomplete one."""
    with journal.open("r+b") as file:
        end, tail = file.seek(0, os.SEEK_END), b""
        while b"\n" not in tail[:-1] and len(tail) < end:
            file.seek(max(0, end - len(tail) - _BLOCK))
            tail = file.read(end - file.tell())
        last = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
        if last and not _is_complete(last):
            file.truncate(end - len(last))
            os.fsync(file.fileno())
            file.seek(0)
            log.warning("%s:%d: the last record is incomplete and was dropped", journal, sum(1 for _ in file) + 1)


def _is_complete(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:  # invalid JSON or UTF-8
        return False
    return line.endswith(b"\n")
