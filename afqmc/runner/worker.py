"""Entry point of ranks other than 0: run the job received from rank 0, writing only to ``logs/rank-N.log``."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from afqmc.cli import DONE
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.run_dir import NullRunDir
from afqmc.runner.lifecycle import WorkerLifecycle
from afqmc.utils.redaction import RedactingFormatter

log = logging.getLogger(__name__)


def run_worker() -> int:
    """Receive a job from rank 0 and run it; return the exit code.

    Everything that this process prints and logs goes to ``logs/rank-N.log`` in the run directory, which is created if
    it does not exist on this host.

    Raises:
        RankError: when another process failed or is gone.
    """
    from afqmc import config
    from afqmc.utils.process import configure_threads, importing_libraries

    coordinator = get_coordinator()
    job = coordinator.receive()
    if "run_dir" not in job:
        return DONE
    run_dir, rank = NullRunDir(Path(job["run_dir"])), coordinator.rank
    redirect_output(run_dir.path / "logs" / f"rank-{rank.rank}.log")
    configure_threads(rank.local_world_size)
    with WorkerLifecycle(job["resumed"]) as lifecycle:
        # importing torch takes seconds, so it is done where signals are handled
        with importing_libraries():
            from afqmc.runner.experiment import run_experiment

        log.info("rank %d of %d, process %d", rank.rank, rank.world_size, os.getpid())
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
