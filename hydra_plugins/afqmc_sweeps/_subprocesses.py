"""A function in a process of its own, which ends with its parent."""

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
_PRELOADED = ["afqmc.runner.experiment", "sklearn.metrics"]  # torch, transformers and accelerate among them


def context_of(start_method: str) -> BaseContext:
    """How processes are started.

    ``forkserver``: one process imports torch and its kin, touches no device, and is forked for each job, which then
    starts in a moment with a clean state. ``spawn``: each imports all by itself. ``auto`` is ``spawn`` where there is
    an NVIDIA driver, since what asks for GPUs at import would leave the forked without them, else ``forkserver``.

    Raises:
        InputError: for any other.
    """
    if start_method not in START_METHODS:
        raise InputError(f"hydra.launcher.start_method={start_method}: legal: {', '.join(START_METHODS)}")
    if start_method == "auto":
        start_method = "spawn" if Path("/dev/nvidiactl").exists() else "forkserver"
    if start_method == "forkserver":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        return context
    return multiprocessing.get_context("spawn")


def answered(context: BaseContext, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own.

    Raises:
        InputError: as it does there.
        RuntimeError: when its process ends without an answer.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        wait([receiver, process.sentinel])
        if not receiver.poll():
            raise EOFError
        failed, found = receiver.recv()
    except EOFError as error:  # the pipe is closed, or somebody else has its other end
        process.join()
        raise RuntimeError(f"the check before the sweep did not end: {how_it_ended(process.exitcode)}") from error
    finally:
        process.terminate()
        process.join()
    if failed:
        raise found
    return found


def how_it_ended(exit_code: int | None) -> str:
    """An exit code in words; the negative ones are signals."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"killed by {name}" + (" (as the kernel does when memory runs out)" if name == "SIGKILL" else "")


def end_with_parent() -> None:
    """Terminate this process, as SIGTERM does, when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    try:
        sender.send((False, function(*arguments)))
    except InputError as error:
        sender.send((True, error))
