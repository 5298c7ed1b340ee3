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

from afqmc.distributed.rank import check_flags, current_rank, export_torchrun_env, is_distributed
from afqmc.run_dir import Status
from afqmc.tracking.background import is_still_working
from afqmc.utils.errors import InputError, SweepFailed, TrialPruned, visible
from afqmc.utils.process import reexec_in_utf8_mode
from afqmc.utils.redaction import redacted
from afqmc.utils.signals import Terminated, handle_termination
from afqmc.utils.stdio import make_stdio_failsafe, stdout_write_error

_HYDRAS, _ASKED = "HYDRA_FULL_ERROR", "AFQMC_FULL_ERROR"  # the second is for the processes of a sweep's jobs

_RANK_0_SPEAKS_S = 10  # seconds in which rank 0 starts and prints its message

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def run_command(command: Callable[[], int]) -> int:
    """Call it; turn what it raises into a message and one of the documented codes.

    0 done, 1 failed, 2 refused input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM, SIGUSR1, SIGUSR2). What is
    printed and cannot be written stops no command; one that was done all the same ends with 1, unless its reader
    went away.
    With ``HYDRA_FULL_ERROR=1`` the message is the whole traceback. No message shows a secret.
    """
    reexec_in_utf8_mode()
    make_stdio_failsafe()
    code = _code_of(command)
    if told := stdout_write_error():
        print(f"standard output: {told}; what was printed from there on is lost", file=sys.stderr)
        return code or FAILED
    return code


_OUTCOMES: tuple[tuple[type[BaseException], Status, int], ...] = (
    (Terminated, Status.interrupted, TERMINATED),
    (KeyboardInterrupt, Status.interrupted, INTERRUPTED),
    (TrialPruned, Status.pruned, DONE),
    (InputError, Status.refused, REFUSED),
    (BaseException, Status.failed, FAILED),
)


def outcome_of(error: BaseException) -> tuple[Status, int]:
    """Return the status of a run that ends with ``error``, and the exit code of its command."""
    return next((status, code) for kind, status, code in _OUTCOMES if isinstance(error, kind))


def _code_of(command: Callable[[], int]) -> int:
    try:
        with handle_termination():
            check_flags()
            return command()
    except KeyboardInterrupt as error:
        print("terminated" if isinstance(error, Terminated) else "interrupted", file=sys.stderr)
        return outcome_of(error)[1]
    except Exception as error:
        print(visible(redacted(_message(error))), file=sys.stderr)
        return outcome_of(error)[1]


def reject_several_processes(command: str) -> None:
    """Refuse a launcher that starts several processes of a command which runs as one; rank 0 alone says so.

    Raises:
        InputError: in rank 0.
    """
    export_torchrun_env()
    rank = current_rank()
    if rank.is_main and not rank.is_single:
        raise InputError(
            f"afqmc.{command}: runs as one process, and the launcher started {rank.size}; start it without a launcher"
        )
    if not rank.is_main:
        # torchrun ends the other processes as soon as one has ended: rank 0 must be the first
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(REFUSED))
        time.sleep(_RANK_0_SPEAKS_S)
        sys.exit(REFUSED)


def _message(error: Exception) -> str:
    if wants_traceback() and not isinstance(error, SweepFailed):
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, InputError | SweepFailed):
        return str(error)
    return f"failed: {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)"


def exit_now(code: int) -> NoReturn:
    """End the process; at once where a library would wait at exit, for a tracker left behind or for other processes."""
    if is_still_working() or is_distributed():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def wants_traceback() -> bool:
    """Whether the person asked for tracebacks."""
    return os.environ.get(_ASKED, os.environ.get(_HYDRAS)) == "1"


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Let Hydra raise errors instead of printing them; ``wants_traceback`` still returns what the user asked for."""
    before = {name: os.environ.get(name) for name in (_ASKED, _HYDRAS)}
    os.environ[_ASKED], os.environ[_HYDRAS] = str(int(wants_traceback())), "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
