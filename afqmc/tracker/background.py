"""A tracker in a thread of its own, waited for only so long."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from afqmc.tracker.protocol import NullTracker, Report, Tracker

log = logging.getLogger(__name__)

_FINISH_S = 60.0  # waited for W&B to write out what it has, at most


class BackgroundTracker:
    """Another tracker, used from a thread of its own: whatever it raises is a warning, once, and then it is left alone.

    ``start`` builds the other tracker, in that thread, since beginning may take seconds or never end.
    """

    def __init__(self, start: Callable[[], Tracker], finish_s: float = _FINISH_S) -> None:
        self._calls: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._finish_s = finish_s
        self._broken = False
        self._thread = threading.Thread(target=self._work, args=(start,), name="tracker", daemon=True)
        self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Queue a row."""
        self._calls.put(("log", row))

    def summary(self, best: dict[str, Any]) -> None:
        """Queue the best figures."""
        self._calls.put(("summary", best))

    def report(self, report: Report) -> None:
        """Queue the report."""
        self._calls.put(("report", report))

    def finish(self, exit_code: int) -> None:
        """End the other tracker, waiting for it a bounded time."""
        self._calls.put(("finish", exit_code))
        self._calls.put(None)
        self._thread.join(self._finish_s)
        if self._thread.is_alive():
            self._warn(f"not finished after {self._finish_s:g} s, left behind")

    def _work(self, start: Callable[[], Tracker]) -> None:
        tracker: Tracker = NullTracker()
        try:
            tracker = start()
        except BaseException as error:  # the library may raise anything, SystemExit too
            self._warn(error)
        while (call := self._calls.get()) is not None:
            if self._broken and call[0] != "finish":
                continue
            try:
                getattr(tracker, call[0])(call[1])
            except BaseException as error:
                self._warn(error)

    def _warn(self, error: BaseException | str) -> None:
        if not self._broken:
            self._broken = True
            log.warning("W&B: %s; the run goes on, and its own files are complete without it", error)
