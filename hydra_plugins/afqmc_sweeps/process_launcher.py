"""``hydra/launcher=processes``: each job in a process of its own, some at once, on this machine."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from afqmc.cli import FAILED, INTERRUPTED, REFUSED, TERMINATED
from afqmc.run_dir import Status
from afqmc.utils.console import format_duration
from afqmc.utils.errors import InputError
from afqmc.utils.process import configure_threads, usable_cores
from hydra_plugins.afqmc_sweeps._job_process import Running, run_in_process
from hydra_plugins.afqmc_sweeps._subprocesses import context_of, how_it_ended

log = logging.getLogger(__name__)


class ProcessLauncher(Launcher):
    """Starts jobs in order, ``n_jobs`` at a time.

    Args:
        n_jobs: At once; -1 for one a core. The cores are shared out among them. Where there are several, what each
            prints goes to console.log in its directory.
        start_method: How processes are started, see ``_processes.context_of``.
    """

    can_fail_fast = True

    def __init__(self, n_jobs: int = 1, start_method: str = "auto") -> None:
        if not isinstance(n_jobs, int) or n_jobs == 0 or n_jobs < -1:
            raise InputError(f"hydra.launcher.n_jobs={n_jobs}: must be >= 1, or -1 for one a core")
        self.n_jobs = usable_cores() if n_jobs == -1 else n_jobs
        self.context = context_of(start_method)
        self.running: set[Running] = set()  # of all threads
        self.turn, self.stopped = threading.Lock(), False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over; threads are told how many they are before anything imports torch."""
        configure_threads(self.n_jobs)
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them all; a job that fails leaves the others running, unless ``sweep.fail_fast``."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        waiting = [(initial_job_idx + place, list(overrides)) for place, overrides in enumerate(job_overrides)]
        running: list[Running] = []
        returns: list[JobReturn] = []
        try:
            while running or (waiting and not self.stopped):
                while waiting and len(running) < self.n_jobs and not self.stopped:
                    running.append(self._start(*waiting.pop(0)))
                ended = wait([job.process.sentinel for job in running])
                for job in [job for job in running if job.process.sentinel in ended]:
                    running.remove(job)
                    returns.append(self._concluded(job))
                    self.stopped |= returns[-1].status is JobStatus.FAILED and self.config.sweep.fail_fast
        except KeyboardInterrupt:
            self.stop()
            for job in running:
                self._concluded(job)
            raise
        return returns

    def stop(self) -> None:
        """Start nothing more, and have what runs save and end; for launches in other threads too.

        With SIGTERM: a Ctrl-C has reached the jobs already, and a second one would not let them save.
        """
        self.stopped = True
        with self.turn:
            for job in self.running:
                job.process.terminate()

    def _start(self, number: int, overrides: list[str]) -> Running:
        with self.turn:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            log.info("%s starts", config.hydra.sweep.subdir)
            process = self.context.Process(  # type: ignore[attr-defined]
                target=run_in_process,
                args=(self.task_function, config, self.hydra_context, self.n_jobs > 1),
                name=f"job {number}",
            )
            process.start()
            job = Running(number, config, process)
            self.running.add(job)
        return job

    def _concluded(self, job: Running) -> JobReturn:
        """What Hydra is told of a job that has ended; one that could not say how is marked as failed."""
        job.process.join()
        with self.turn:
            self.running.discard(job)
        code, run_dir = job.process.exitcode, job.run_dir
        status = run_dir.read_status()
        if code not in (0, FAILED, REFUSED, INTERRUPTED, TERMINATED):
            try:
                run_dir.write_status(Status.failed, step=status.get("step", 0), error=how_it_ended(code))
            except OSError as error:  # a full disk ends no other job
                log.warning("%s: %s, which could not be written down: %s", run_dir.path, how_it_ended(code), error)
        ended = run_dir.read_status().get("status", how_it_ended(code))
        log.info("%s %s after %s", run_dir.path.name, ended, format_duration(time.monotonic() - job.since))
        found = JobReturn(overrides=[], cfg=job.config, working_dir=os.getcwd())
        found.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        found.return_value = RuntimeError(f"{run_dir.path}: {ended}") if code else None
        return found
