"""SIGTERM as an exception, and moments that neither it nor Ctrl-C may cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: the machine is wanted back. To all that tidies up it is another Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """In here SIGTERM raises ``Terminated``; afterwards it does again what it did before."""

    def terminate(*_: object) -> None:
        raise Terminated

    with _handled(terminate, signal.SIGTERM):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off to the end: for the few files that say how a run ended."""
    came: list[int] = []
    with _handled(lambda number, _: came.append(number), signal.SIGINT, signal.SIGTERM):
        yield
    if came:
        signal.raise_signal(came[-1])


@contextmanager
def _handled(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """Handle them so; the main thread alone may say so, a launcher's thread leaves them as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, signal.SIG_DFL if handled is None else handled)  # None: not Python's
