"""Start processes that end with their parent, and call functions in them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from afqmc.utils.errors import InputError

START_METHODS = ("auto", "forkserver", "spawn")


def process_context(start_method: str) -> BaseContext:
    """Return the multiprocessing context for a start method.

    ``forkserver``: a server process imports torch and other libraries once, uses no device, and is forked for each job,
    which therefore starts fast and with a clean state. ``spawn``: each process imports everything itself. ``auto``:
    ``spawn`` if there is an NVIDIA driver, else ``forkserver``. A library that queries GPUs when it is imported in the
    server would make them unusable in the forked processes.

    Raises:
        InputError: For any other method.
    """
    if start_method not in START_METHODS:
        raise InputError(f"hydra.launcher.start_method={start_method}: allowed: {', '.join(START_METHODS)}")
    if start_method == "auto":
        start_method = "spawn" if Path("/dev/nvidiactl").exists() else "forkserver"
    if start_method == "forkserver":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["hydra_plugins.afqmc_sweeps._preloaded"])
        return context
    return multiprocessing.get_context("spawn")


def call_in_process(context: BaseContext, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, and return its result.

    Raises:
        InputError: If the function raises it.
        RuntimeError: If the process ends without a result.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments), daemon=True)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        wait([receiver, process.sentinel])
        if not receiver.poll():
            raise EOFError
        failed, result = receiver.recv()
    except EOFError as error:  # the pipe is closed, or a forked process keeps its other end open
        process.join()
        raise RuntimeError(f"the check before the sweep did not finish: {describe_exit(process.exitcode)}") from error
    finally:
        process.terminate()
        process.join()
    if failed:
        raise result
    return result


def describe_exit(exit_code: int | None) -> str:
    """Describe an exit code; negative ones are signals."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"killed by {name}" + (" (as the kernel does when memory runs out)" if name == "SIGKILL" else "")


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _send_result(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    try:
        sender.send((False, function(*arguments)))
    except InputError as error:
        sender.send((True, error))
