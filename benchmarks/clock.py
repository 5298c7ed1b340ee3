"""One stopwatch for all contestants, so that their figures mean the same."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any


class Clock:
    """Told which step has just ended; keeps the times that matter and the peak of memory.

    The timed part runs from the end of the last warm-up step to the end of the last step, whatever lies between:
    the next epoch's shuffling, its loader, logging and bars.
    """

    def __init__(self, warm_up: int, last: int, spawned: float) -> None:
        """Args: the last step that warms up, the last step of all, and when the process was started."""
        self.warm_up, self.last, self.spawned = warm_up, last, spawned
        self.step = 0
        self.first_step_seconds: float | None = None
        self.started: float | None = None
        self.seconds: float | None = None
        self.peak_mib: float | None = None

    def reach(self, step: int) -> None:
        """``step`` optimizer steps are done."""
        self.step = step
        if step in (1, self.warm_up, self.last):
            wait_for_device()
        now = time.monotonic()  # shared by all processes of a machine
        if self.first_step_seconds is None:
            self.first_step_seconds = now - self.spawned
        if step == self.warm_up:
            self.started = now
        if step == self.last:
            self.peak_mib = peak_mib()
            if self.started is not None:
                self.seconds = now - self.started

    def start(self) -> None:
        """An evaluation begins."""
        wait_for_device()
        self.started = time.monotonic()

    def stop(self) -> None:
        """It has ended."""
        wait_for_device()
        assert self.started is not None
        self.seconds = time.monotonic() - self.started
        self.peak_mib = peak_mib()


def wait_for_device() -> None:
    """Until everything launched on a GPU is done; nothing where there is none."""
    torch: Any = sys.modules.get("torch")  # not imported for this: it would count as start-up
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_mib() -> float:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
