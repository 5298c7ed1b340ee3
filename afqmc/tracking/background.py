"""Run a tracker in a background thread, so that it can neither stop nor delay a run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from afqmc.tracking.base import DevPredictions, NullTracker, Tracker
from afqmc.utils.errors import first_line

log = logging.getLogger(__name__)

# how long to wait in finish(), in seconds
_FINISH_S = 60.0  # for W&B to send its queue
_START_S = 10.0  # if W&B has not even started
_FAILED_S = 5.0  # if the run failed or was interrupted
_SILENT_S = 1.0  # before a line in the log says that the run is waiting
_THREAD = "tracker"


def is_still_working() -> bool:
    """Return whether a tracker thread is still running."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class BackgroundTracker:
    """Forwards calls to another tracker in a background thread. Its first error is a warning; later calls are skipped.

    Args:
        start: Builds the other tracker. It is called in the thread, since starting may take seconds or hang.
        recovery_hint: How to send the rest later, for the warning if the tracker does not finish in time.
        finish_s: How long to wait for the tracker at the end, in seconds.
    """

    def __init__(self, start: Callable[[], Tracker], recovery_hint: str = "", finish_s: float = _FINISH_S) -> None:
        self._calls: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._recovery_hint, self._finish_s = recovery_hint, finish_s
        self._has_failed = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(start,), name=_THREAD, daemon=True)
        self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Queue a row."""
        self._calls.put(("log", row))

    def log_summary(self, best: dict[str, Any]) -> None:
        """Queue the metrics of the best evaluation."""
        self._calls.put(("log_summary", best))

    def report(self, report: DevPredictions) -> None:
        """Queue the report."""
        self._calls.put(("report", report))

    def tag(self, tag: str) -> None:
        """Queue a tag."""
        self._calls.put(("tag", tag))

    def finish(self, exit_code: int) -> None:
        """Finish the other tracker, and wait for it: a shorter time if it has not started, or ``exit_code`` is not 0.

        If it does not finish in time, its thread is abandoned; it ends with the process.
        """
        self._calls.put(("finish", exit_code))
        self._calls.put(None)
        since = time.monotonic()
        limit = self._finish_s if exit_code == 0 else min(self._finish_s, _FAILED_S)
        self._thread.join(min(limit, _SILENT_S))
        if self._thread.is_alive():
            limit = limit if self._started.is_set() else min(limit, _START_S)
            log.info("closing W&B, at most %g s", limit)
            self._thread.join(max(0.0, limit - (time.monotonic() - since)))
        if self._thread.is_alive():
            if self._started.is_set():
                self._warn(f"not finished after {limit:g} s, abandoned; {self._recovery_hint}")
            else:
                self._warn(f"not started after {limit:g} s, abandoned")

    def _work(self, start: Callable[[], Tracker]) -> None:
        tracker: Tracker = NullTracker()
        try:
            tracker = start()
        except BaseException as error:  # wandb may raise anything, even SystemExit
            self._warn(first_line(error))
        self._started.set()
        while (call := self._calls.get()) is not None:
            if self._has_failed and call[0] != "finish":
                continue
            try:
                getattr(tracker, call[0])(call[1])
            except BaseException as error:
                self._warn(first_line(error))

    def _warn(self, problem: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.warning("W&B: %s; the run continues, and its own files are complete without it", problem)
