"""Entry point of all commands: exit codes, and one message instead of a traceback."""

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
from afqmc.utils.language import check_language, message_of, translate
from afqmc.utils.process import reexec_in_utf8_mode
from afqmc.utils.redaction import redacted
from afqmc.utils.signals import Terminated, handle_termination
from afqmc.utils.stdio import make_stdio_failsafe, stdout_write_error

_HYDRA_VARIABLE = "HYDRA_FULL_ERROR"  # set by the user
_OWN_VARIABLE = "AFQMC_FULL_ERROR"  # what the user chose, while hydra_raises sets Hydra's; inherited by sweep jobs
_RANK_0_REPORT_S = 10  # in which rank 0 starts and prints its message

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def run_command(command: Callable[[], int]) -> int:
    """Run a command, print its error as one message without secrets, and return the exit code.

    Codes: 0 done, 1 failed, 2 invalid input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM, SIGUSR1, SIGUSR2).
    With ``HYDRA_FULL_ERROR=1`` the message is the full traceback. If standard output cannot be written, the command
    continues, and an otherwise successful one returns 1 at its end, unless the reader exited early (``| head``).
    """
    reexec_in_utf8_mode()
    make_stdio_failsafe()
    code = _run(command)
    if error := stdout_write_error():
        print(translate(f"standard output: {error}; the output from there on is lost"), file=sys.stderr)
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


def _run(command: Callable[[], int]) -> int:
    try:
        with handle_termination():
            check_language()
            check_flags()
            return command()
    except KeyboardInterrupt as error:
        print(translate("terminated" if isinstance(error, Terminated) else "interrupted"), file=sys.stderr)
        return outcome_of(error)[1]
    except Exception as error:
        print(visible(redacted(_message(error))), file=sys.stderr)
        return outcome_of(error)[1]


def reject_several_processes(command: str) -> None:
    """Check that no launcher started several processes of a command that runs as a single process.

    Raises:
        InputError: on rank 0. Other ranks exit without a message.
    """
    export_torchrun_env()
    rank = current_rank()
    if rank.is_main and not rank.is_single:
        raise InputError(
            f"afqmc.{command}: runs as one process, and the launcher started {rank.world_size}; "
            "start it without a launcher"
        )
    if not rank.is_main:
        # torchrun terminates all ranks once one has exited: let rank 0 exit first, so that it can print its message
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(REFUSED))
        time.sleep(_RANK_0_REPORT_S)
        sys.exit(REFUSED)


def _message(error: Exception) -> str:
    if wants_traceback() and not isinstance(error, SweepFailed):
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, InputError | SweepFailed):
        return translate(message_of(error))
    return translate(f"failed: {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)")


def exit_now(code: int) -> NoReturn:
    """Exit the process; without cleanup if it would wait for an abandoned tracker thread or for other ranks."""
    if is_still_working() or is_distributed():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def wants_traceback() -> bool:
    """Return whether the user asked for tracebacks."""
    return os.environ.get(_OWN_VARIABLE, os.environ.get(_HYDRA_VARIABLE)) == "1"


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Let Hydra raise errors instead of printing them; ``wants_traceback`` still returns what the user asked for."""
    previous = {name: os.environ.get(name) for name in (_OWN_VARIABLE, _HYDRA_VARIABLE)}
    os.environ[_OWN_VARIABLE], os.environ[_HYDRA_VARIABLE] = str(int(wants_traceback())), "1"
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
