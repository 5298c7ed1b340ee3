"""Standard output and error that never raise: neither when writing fails, nor for unencodable characters."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class _FailsafeFile(io.FileIO):
    """A file descriptor that is redirected to /dev/null when a write fails; the error is stored."""

    write_error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.write_error = error
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())  # the descriptor itself, for output of C libraries
            os.close(devnull)
            return len(data)


class _Unbuffered(io.BufferedWriter):
    """Flushes after every write, as ``python -u`` requires."""

    def write(self, data: Any, /) -> int:
        count = super().write(data)
        self.flush()
        return count


def make_stdio_failsafe() -> None:
    r"""Replace standard output and error by streams that never raise, so that output problems cannot stop a run.

    When the reader exits (``| head -1``), the disk is full (``> /dev/full``) or the stream was closed at the start
    (``>&-``), further output is discarded. Characters that the encoding lacks are written as ``\u6570``. Streams that
    have been replaced already, such as those of a notebook, are left unchanged.
    """
    _fill_closed()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _open_failsafe(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _open_failsafe(2, sys.stderr)


def stdout_write_error() -> str:
    """Return why writing to standard output failed; an empty text if it did not, or if only its reader exited early."""
    if sys.stdout is None:  # closed at the start, and make_stdio_failsafe was not called
        return ""
    sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "write_error", None)
    return "" if error is None or error.errno == errno.EPIPE else str(error.strerror)


def _fill_closed() -> None:
    """Open /dev/null for closed descriptors 0 to 2; otherwise the next file opened would become standard output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _open_failsafe(descriptor: int, original: TextIO | None) -> TextIO:
    """Return a failsafe stream with the encoding and buffering of the original, which is None if it was closed."""
    unbuffered = getattr(original, "write_through", False)
    buffer = (_Unbuffered if unbuffered else io.BufferedWriter)(_FailsafeFile(descriptor, "w", closefd=False))
    if not isinstance(original, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    original.flush()
    return io.TextIOWrapper(
        buffer,
        original.encoding,
        "backslashreplace",
        line_buffering=original.line_buffering,
        write_through=original.write_through,
    )
