"""Signals that end a run: raised at once, put off to the end of what must not be cut in two, or never waited for.

SIGTERM, SIGUSR1 and SIGUSR2 are what schedulers send, SIGINT (Ctrl-C) is a person. A second Ctrl-C leaves at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The machine is wanted back. To all that tidies up it is another Ctrl-C."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_AT_ONCE = 130


class _Pending:
    """What came while it was put off, and how often a person asked."""

    deferred = False
    came: int | None = None
    interrupts = 0


def _handle(number: int, _: FrameType | None) -> None:
    if number == signal.SIGINT:
        _Pending.interrupts += 1
        if _Pending.interrupts > 1:
            os._exit(_AT_ONCE)
    if _Pending.deferred:
        _Pending.came = number
    else:
        _raise(number)


def _raise(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


@contextmanager
def handle_termination() -> Iterator[None]:
    """In here these signals raise ``KeyboardInterrupt`` or ``Terminated``; afterwards they do what they did before.

    Only the main thread may say so; in a launcher's thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Pending.deferred, _Pending.came, _Pending.interrupts = False, None, 0
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, signal.SIG_DFL if handled is None else handled)  # None: not Python's


@contextmanager
def defer_signals() -> Iterator[None]:
    """Within ``handle_termination``: defer signals to its end, or to ``allow_signals`` or ``raise_deferred``."""
    outer = _set(True)
    try:
        yield
    finally:
        _set(outer)
    if not outer:
        raise_deferred()


@contextmanager
def allow_signals() -> Iterator[None]:
    """Within ``defer_signals``: something long that may be cut short at any moment."""
    outer = _set(False)
    try:
        raise_deferred()
        yield
    finally:
        _set(outer)


def raise_deferred() -> None:
    """Raise what was put off, if anything was: here it may."""
    number, _Pending.came = _Pending.came, None
    if number is not None and threading.current_thread() is threading.main_thread():
        _raise(number)


def pending() -> int:
    """The signal that is put off, 0 if none is; it stays so."""
    return _Pending.came or 0


def defer(number: int) -> None:
    """As if this signal had come: one of several processes got it, and all end together."""
    _Pending.came = number


def clear_deferred() -> None:
    """What is put off is no matter any more: a launcher ends all processes when one of them has ended."""
    _Pending.came = None


def _set(deferred: bool) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return deferred
    before, _Pending.deferred = _Pending.deferred, deferred
    return before
