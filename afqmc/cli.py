"""What the commands beside ``run`` share: exit codes, and one message instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from afqmc.errors import InputError

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def exit_code(command: Callable[[], int]) -> int:
    """Call it; turn what it raises into a message and one of the documented codes.

    With ``HYDRA_FULL_ERROR=1`` everything is raised as it is.
    """
    try:
        return command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return FAILED
    except InputError as error:
        if full_errors():
            raise
        print(error, file=sys.stderr)
        return REFUSED
    except Exception as error:
        if full_errors():
            raise
        print(f"failed: {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        return FAILED


def full_errors() -> bool:
    """Whether the person asked for tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
