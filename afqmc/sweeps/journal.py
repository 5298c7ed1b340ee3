"""The journal of a search in Optuna's format; a process that dies while it writes stops no later search."""

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
    """Optuna's backend with a lock that ends with its process; errors name the file and the line.

    Args:
        path: The file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path, guard = path, _Lock(path)
        super().__init__(str(path), guard)
        guard.acquire()  # to drop what a killed process left
        guard.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from a number on.

        Raises:
            InputError: for a damaged record before the last.
        """
        line = log_number_from + 1
        try:
            for record in super().read_logs(log_number_from):
                if not (isinstance(record, dict) and "op_code" in record and "worker_id" in record):
                    raise ValueError("not a record of Optuna")
                yield record
                line += 1
        except ValueError as error:
            raise InputError(f"{self.path}:{line}: damaged record ({first_line(error)}); {_REMEDY}") from error


class _Lock(JournalFileOpenLock):
    """Optuna's own locks are files that outlive a killed process; this one is the operating system's."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self.journal, self.path = journal, journal.with_name(_LOCK)
        self._held: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock. Nobody is writing then, so that an incomplete last record is one of a dead process."""
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            lock(number, self.path, wait=True)
            _drop_torn_end(self.journal)
        except BaseException:
            os.close(number)
            raise
        self._held = number
        return True

    def release(self) -> None:
        """Unlock, by closing the file."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def _drop_torn_end(journal: Path) -> None:
    """Truncate the file to its last whole record: what follows was cut off by a crash or a full disk."""
    with journal.open("r+b") as file:
        end, tail = file.seek(0, os.SEEK_END), b""
        while b"\n" not in tail[:-1] and len(tail) < end:
            file.seek(max(0, end - len(tail) - _BLOCK))
            tail = file.read(end - file.tell())
        torn = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
        if torn and not _is_whole(torn):
            file.truncate(end - len(torn))
            os.fsync(file.fileno())
            file.seek(0)
            log.warning("%s:%d: the last record is incomplete and was dropped", journal, sum(1 for _ in file) + 1)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:  # of JSON, or of its encoding
        return False
    return line.endswith(b"\n")
