"""Termination signals: raise immediately, or defer until the end of a critical section.

Schedulers send SIGTERM, SIGUSR1 or SIGUSR2; Ctrl-C sends SIGINT. A second Ctrl-C exits immediately.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, SIGUSR1 and SIGUSR2. A KeyboardInterrupt, so that existing cleanup code handles it."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_EXIT_CODE = 130  # of the second Ctrl-C


class _State:
    """Process-wide state of the handler: whether signals are deferred, the deferred one, the number of Ctrl-Cs."""

    is_deferring = False
    deferred: int | None = None
    interrupts = 0


def _handle(signum: int, _: FrameType | None) -> None:
    if signum == signal.SIGINT:
        _State.interrupts += 1
        if _State.interrupts > 1:
            os._exit(_EXIT_CODE)
    if _State.is_deferring:
        _State.deferred = signum
    else:
        _raise(signum)


def _raise(signum: int) -> None:
    raise KeyboardInterrupt if signum == signal.SIGINT else Terminated


@contextmanager
def handle_termination() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` or ``Terminated`` on these signals; restore the previous handlers on exit.

    Does nothing outside the main thread, where Python does not allow signal handlers to be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.is_deferring, _State.deferred, _State.interrupts = False, None, 0
    previous = {signum: signal.signal(signum, _handle) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in previous.items():  # None: a handler that was not set from Python
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals until the outermost ``defer_signals`` ends, ``allow_signals`` begins, or ``raise_deferred``."""
    outer = _set_deferring(True)
    try:
        yield
    finally:
        _set_deferring(outer)
    if not outer:
        raise_deferred()


@contextmanager
def allow_signals() -> Iterator[None]:
    """Raise signals immediately within ``defer_signals``, for long work that may be interrupted at any point."""
    outer = _set_deferring(False)
    try:
        raise_deferred()
        yield
    finally:
        _set_deferring(outer)


def raise_deferred() -> None:
    """Raise the deferred signal, if there is one."""
    signum, _State.deferred = _State.deferred, None
    if signum is not None and threading.current_thread() is threading.main_thread():
        _raise(signum)


def pending() -> int:
    """Return the number of the deferred signal, or 0 if there is none. The signal stays deferred."""
    return _State.deferred or 0


def defer(signum: int) -> None:
    """Record a signal that another rank received as if this process had received and deferred it."""
    _State.deferred = signum


def clear_deferred() -> None:
    """Discard the deferred signal. The launcher terminates all ranks once one has exited."""
    _State.deferred = None


def _set_deferring(is_deferring: bool) -> bool:
    """Set the state and return the previous one; outside the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        return is_deferring
    previous, _State.is_deferring = _State.is_deferring, is_deferring
    return previous
