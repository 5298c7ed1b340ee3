"""A tracker in a thread of its own, waited for only so long."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from afqmc.tracking.base import NullTracker, Report, Tracker
from afqmc.utils.errors import first_line

log = logging.getLogger(__name__)

_FINISH_S = 60.0  # waited for W&B to send what it has, at most
_BEGIN_S = 10.0  # the part of it that is waited for a W&B which has not even begun
_HURRY_S = 5.0  # all that is waited where a run failed or somebody wants it gone
_SILENT_S = 1.0  # what is over by then is not worth a line
_THREAD = "tracker"


def is_still_working() -> bool:
    """Whether, now that all is over, a tracker still works at something."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class BackgroundTracker:
    """Another tracker, used from a thread of its own: whatever it raises is a warning, once, and then it is left alone.

    ``start`` builds the other tracker, in that thread, since beginning may take seconds or never end; ``rescue`` says
    how to save what a tracker has not sent when it is left behind.
    """

    def __init__(self, start: Callable[[], Tracker], rescue: str = "", finish_s: float = _FINISH_S) -> None:
        self._calls: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._rescue, self._finish_s = rescue, finish_s
        self._broken = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(start,), name=_THREAD, daemon=True)
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

    def tag(self, tag: str) -> None:
        """Queue a label."""
        self._calls.put(("tag", tag))

    def finish(self, exit_code: int) -> None:
        """End the other tracker; it is waited for so long, less where it has not begun or the run has not ended well.

        What is not done by then is left behind, in a thread that ends with the process.
        """
        self._calls.put(("finish", exit_code))
        self._calls.put(None)
        since = time.monotonic()
        limit = self._finish_s if exit_code == 0 else min(self._finish_s, _HURRY_S)
        self._thread.join(min(limit, _SILENT_S))
        if self._thread.is_alive():
            limit = limit if self._begun.is_set() else min(limit, _BEGIN_S)
            log.info("closing W&B, at most %g s", limit)
            self._thread.join(max(0.0, limit - (time.monotonic() - since)))
        if self._thread.is_alive():
            done, rescue = ("finished", f"; {self._rescue}") if self._begun.is_set() else ("begun", "")
            self._warn(f"not {done} after {limit:g} s, left behind{rescue}")

    def _work(self, start: Callable[[], Tracker]) -> None:
        tracker: Tracker = NullTracker()
        try:
            tracker = start()
        except BaseException as error:  # the library may raise anything, SystemExit too
            self._warn(first_line(error))
        self._begun.set()
        while (call := self._calls.get()) is not None:
            if self._broken and call[0] != "finish":
                continue
            try:
                getattr(tracker, call[0])(call[1])
            except BaseException as error:
                self._warn(first_line(error))

    def _warn(self, problem: str) -> None:
        if not self._broken:
            self._broken = True
            log.warning("W&B: %s; the run goes on, and its own files are complete without it", problem)
