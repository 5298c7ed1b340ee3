"""What the commands share: exit codes, and one message instead of a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from afqmc.distributed.rank import adopt_slurm, check_flags, here, is_beside_others
from afqmc.run_dir import Status
from afqmc.tracking.background import is_left_behind
from afqmc.utils.errors import InputError, JobsFailed, Pruned, visible
from afqmc.utils.process import speak_utf8
from afqmc.utils.redaction import redacted
from afqmc.utils.signals import Terminated, terminable
from afqmc.utils.stdio import lost_output, make_lasting

_HYDRAS, _ASKED = "HYDRA_FULL_ERROR", "AFQMC_FULL_ERROR"  # the second is for the processes of a sweep's jobs

_RANK_0_SPEAKS_S = 10  # seconds in which rank 0 starts and prints its message

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def exit_code(command: Callable[[], int]) -> int:
    """Call it; turn what it raises into a message and one of the documented codes.

    0 done, 1 failed, 2 refused input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM, SIGUSR1, SIGUSR2). What is
    printed and cannot be written stops no command; one that was done all the same ends with 1, unless its reader
    went away.
    With ``HYDRA_FULL_ERROR=1`` the message is the whole traceback. No message shows a secret.
    """
    speak_utf8()
    make_lasting()
    code = _code_of(command)
    if told := lost_output():
        print(f"standard output: {told}; what was printed from there on is lost", file=sys.stderr)
        return code or FAILED
    return code


_OUTCOMES: tuple[tuple[type[BaseException], Status, int], ...] = (
    (Terminated, Status.interrupted, TERMINATED),
    (KeyboardInterrupt, Status.interrupted, INTERRUPTED),
    (Pruned, Status.pruned, DONE),
    (InputError, Status.refused, REFUSED),
    (BaseException, Status.failed, FAILED),
)


def outcome_of(error: BaseException) -> tuple[Status, int]:
    """Return the status of a run that ends with ``error``, and the exit code of its command."""
    return next((status, code) for kind, status, code in _OUTCOMES if isinstance(error, kind))


def _code_of(command: Callable[[], int]) -> int:
    try:
        with terminable():
            check_flags()
            return command()
    except KeyboardInterrupt as error:
        print("terminated" if isinstance(error, Terminated) else "interrupted", file=sys.stderr)
        return outcome_of(error)[1]
    except Exception as error:
        print(visible(redacted(_message(error))), file=sys.stderr)
        return outcome_of(error)[1]


def refuse_several_processes(command: str) -> None:
    """Refuse a launcher that starts several processes of a command which runs as one; rank 0 alone says so.

    Raises:
        InputError: in rank 0.
    """
    adopt_slurm()
    rank = here()
    if rank.is_main and not rank.is_alone:
        raise InputError(
            f"afqmc.{command}: runs as one process, and the launcher started {rank.size}; start it without a launcher"
        )
    if not rank.is_main:
        # torchrun ends the other processes as soon as one has ended: rank 0 must be the first
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(REFUSED))
        time.sleep(_RANK_0_SPEAKS_S)
        sys.exit(REFUSED)


def _message(error: Exception) -> str:
    if full_errors() and not isinstance(error, JobsFailed):
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, InputError | JobsFailed):
        return str(error)
    return f"failed: {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)"


def leave(code: int) -> NoReturn:
    """End the process; at once where a library would wait at exit, for a tracker left behind or for other processes."""
    if is_left_behind() or is_beside_others():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def full_errors() -> bool:
    """Whether the person asked for tracebacks."""
    return os.environ.get(_ASKED, os.environ.get(_HYDRAS)) == "1"


@contextmanager
def errors_handed_on() -> Iterator[None]:
    """In here Hydra hands errors on instead of printing them; ``full_errors`` still is what the person asked for."""
    before = {name: os.environ.get(name) for name in (_ASKED, _HYDRAS)}
    os.environ[_ASKED], os.environ[_HYDRAS] = str(int(full_errors())), "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
