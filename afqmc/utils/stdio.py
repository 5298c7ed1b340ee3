"""Standard output and error that outlast whoever reads them, and take any character."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class _Lasting(io.FileIO):
    """The raw end of a stream: from the first write that fails on, everything goes nowhere; the error is kept."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for what libraries in C write, too
            os.close(nowhere)
            return len(data)


class _Unbuffered(io.BufferedWriter):
    """Passes every write on at once, as ``python -u`` wants it."""

    def write(self, data: Any, /) -> int:
        count = super().write(data)
        self.flush()
        return count


def make_stdio_failsafe() -> None:
    r"""Give this process a standard output and error that never raise: a training is worth more than its lines.

    A reader that goes away (``| head -1``), a full disk (``> /dev/full``) or a stream that was closed beforehand
    (``>&-``) silences the stream and nothing else; what its encoding does not have is written as ``\u6570``. Streams
    that somebody has put there already, such as a notebook's, are left alone.
    """
    _fill_closed()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(2, sys.stderr)


def stdout_write_error() -> str:
    """Why standard output could not be written to its end; nothing where it was, or its reader wanted no more."""
    if sys.stdout is None:  # closed beforehand, by a caller who did not make it lasting
        return ""
    sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)
    return "" if error is None or error.errno == errno.EPIPE else str(error.strerror)


def _fill_closed() -> None:
    """Nowhere in place of a closed 0, 1 or 2: the next file to be opened would become standard output."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _opened(number: int, like: TextIO | None) -> TextIO:
    """A lasting stream in the manner of one that Python opened; that is None where it was closed."""
    unbuffered = getattr(like, "write_through", False)
    buffer = (_Unbuffered if unbuffered else io.BufferedWriter)(_Lasting(number, "w", closefd=False))
    if not isinstance(like, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    like.flush()
    return io.TextIOWrapper(
        buffer,
        like.encoding,
        "backslashreplace",
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
