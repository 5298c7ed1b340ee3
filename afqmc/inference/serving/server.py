"""Run the service with uvicorn: in this process, or in several worker processes that share its socket."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from functools import partial

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from afqmc.inference.predictor import Predictor
from afqmc.inference.serving.app import build_app
from afqmc.inference.serving.json_log import configure_json_log
from afqmc.inference.serving.settings import ServeSettings
from afqmc.utils.signals import Terminated

_KEEP_ALIVE_S = 30  # an idle connection is closed
_SHUTDOWN_MARGIN_S = 5  # seconds after the time limit of requests
_WORKER_PATIENCE_S = 120  # in which a worker must answer its supervisor, also while it imports and loads


def serve_on(bound: socket.socket, settings: ServeSettings, predictor: Predictor | None, workers: int) -> None:
    """Serve until SIGINT or SIGTERM, then answer all requests that have arrived.

    With one worker, ``predictor`` serves. Several workers are processes that load the run themselves; they share the
    socket and the metrics, and each has its own model, queue and limits.

    Raises:
        Terminated: after a signal; for SIGINT, KeyboardInterrupt.
        RuntimeError: if a worker cannot start.
    """
    configure_json_log()
    raise_open_files()
    if workers == 1:
        uvicorn.Server(_config(partial(build_app, settings, predictor), settings, 1)).run([bound])
        return
    with tempfile.TemporaryDirectory(prefix="afqmc-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # workers inherit it
        supervisor = _Supervisor(_config(partial(build_app, settings), settings, workers), [bound])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise RuntimeError("a worker could not start; the log has the reason")
        raise KeyboardInterrupt if supervisor.is_interrupted else Terminated


class _Supervisor(Multiprocess):
    """Remembers which signal ended it."""

    is_interrupted = False

    def handle_int(self) -> None:
        """End after SIGINT."""
        self.is_interrupted = True
        super().handle_int()


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard limit: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _config(app: object, settings: ServeSettings, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=True,
        workers=workers,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.timeout_s) + _SHUTDOWN_MARGIN_S,
        timeout_worker_healthcheck=_WORKER_PATIENCE_S,
    )
