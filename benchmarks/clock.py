"""The stopwatch that all contestants share, so that their figures are comparable."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any


class Clock:
    """Measures the time to the first step, the time of the timed steps, and peak memory.

    The timed part is from the end of the last warm-up step to the end of the last step. It includes whatever happens in
    between: shuffling for the next epoch, its loader, logging and progress bars.
    """

    def __init__(self, warm_up: int, last: int, spawned: float) -> None:
        """Initialise the clock.

        Args:
            warm_up: Last warm-up step, counted from 1.
            last: Last step.
            spawned: ``time.monotonic()`` at the start of the process.
        """
        self.warm_up, self.last, self.spawned = warm_up, last, spawned
        self.step = 0
        self.first_step_seconds: float | None = None
        self.started: float | None = None
        self.seconds: float | None = None
        self.peak_mib: float | None = None

    def on_step_end(self, step: int) -> None:
        """Record the end of an optimizer step, counted from 1."""
        self.step = step
        if step in (1, self.warm_up, self.last):
            wait_for_device()
        now = time.monotonic()  # the same clock in all processes of a machine
        if self.first_step_seconds is None:
            self.first_step_seconds = now - self.spawned
        if step == self.warm_up:
            self.started = now
        if step == self.last:
            self.peak_mib = peak_mib()
            if self.started is not None:
                self.seconds = now - self.started

    def start(self) -> None:
        """Start the time of an evaluation."""
        wait_for_device()
        self.started = time.monotonic()

    def stop(self) -> None:
        """Stop the time of an evaluation."""
        wait_for_device()
        assert self.started is not None
        self.seconds = time.monotonic() - self.started
        self.peak_mib = peak_mib()


def wait_for_device() -> None:
    """Wait until all kernels on the GPU are done, if there is one."""
    torch: Any = sys.modules.get("torch")  # do not import it here: the import would count as start-up time
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_mib() -> float:
    """Return the peak resident set size of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
