"""Entry point of ranks other than 0: run the job received from rank 0, writing only to ``logs/rank-N.log``."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from afqmc.cli import DONE
from afqmc.distributed.rendezvous import board
from afqmc.run_dir import NullRunDir
from afqmc.tracking.base import NullTracker, Tracker
from afqmc.utils.errors import Pruned
from afqmc.utils.redaction import RedactingFormatter
from afqmc.utils.signals import forget, terminable, undisturbed

log = logging.getLogger(__name__)


class WorkerLifecycle:
    """Context of one run in a rank other than 0, which writes no files.

    Attributes:
        resumed: Whether rank 0 resumes a run.
    """

    def __init__(self, resumed: bool) -> None:
        self.resumed = resumed
        self.finished: dict[str, Any] | None = None
        self.summary: dict[str, Any] = {}
        self.tracker: Tracker = NullTracker()
        self._coordinator = board()
        self._signals = terminable()

    def __enter__(self) -> WorkerLifecycle:
        self._signals.__enter__()
        return self

    def begin_training(self, trainer: object) -> None:
        """Do nothing."""

    def complete(self, summary: dict[str, Any]) -> None:
        """Keep the summary; rank 0 writes it."""
        self.summary = summary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if error is None or isinstance(error, Pruned):
                log.info("%s", error or "done")
                self._coordinator.end(None)
                return True
            with undisturbed():
                self._coordinator.end(error)
                cause = self._coordinator.explained(error)
                if not isinstance(cause, KeyboardInterrupt):
                    forget()
            raise cause from error
        finally:
            self._signals.__exit__(None, None, None)


def run_worker() -> int:
    """Wait until rank 0 says what there is to do, and do it; return the exit code.

    What this process prints and logs goes to ``logs/rank-N.log`` of the run directory, which is made on this host.

    Raises:
        RankError: when another process failed or is gone.
    """
    from afqmc import config
    from afqmc.utils.process import settle

    coordinator = board()
    job = coordinator.told()
    if "run_dir" not in job:
        return DONE
    run_dir, rank = NullRunDir(Path(job["run_dir"])), coordinator.rank
    redirect_output(run_dir.path / "logs" / f"rank-{rank.number}.log")
    settle(rank.local_size)
    with WorkerLifecycle(job["resumed"]) as lifecycle:
        from afqmc.runner.experiment import run_experiment  # importing torch takes seconds: signals are handled here

        log.info("rank %d of %d, process %d", rank.number, rank.size, os.getpid())
        run_experiment(config.parse(job["config"]), run_dir, lifecycle=nullcontext(lifecycle))
    return DONE


def redirect_output(path: Path) -> None:
    """Append everything that this process prints and logs to a file, output of C libraries included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
