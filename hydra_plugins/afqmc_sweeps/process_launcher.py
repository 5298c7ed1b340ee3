"""``hydra/launcher=processes``: run each job in its own process on this machine, optionally several at once."""

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
from hydra_plugins.afqmc_sweeps._job_process import RunningJob, run_in_process
from hydra_plugins.afqmc_sweeps._subprocesses import describe_exit, process_context

log = logging.getLogger(__name__)


class ProcessLauncher(Launcher):
    """Starts jobs in order, ``n_jobs`` at a time.

    Args:
        n_jobs: The number of concurrent jobs, which share the cores; -1 for one per core. If it is greater than 1, each
            job's output goes to console.log in its directory.
        start_method: How processes are started, see ``_subprocesses.process_context``.
    """

    can_fail_fast = True

    def __init__(self, n_jobs: int = 1, start_method: str = "auto") -> None:
        if not isinstance(n_jobs, int) or n_jobs == 0 or n_jobs < -1:
            raise InputError(f"hydra.launcher.n_jobs={n_jobs}: must be >= 1, or -1 for one per core")
        self.n_jobs = usable_cores() if n_jobs == -1 else n_jobs
        self.context = process_context(start_method)
        self.running: set[RunningJob] = set()  # from all threads that launch
        self.lock, self.stopped = threading.Lock(), False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes, and set the number of threads before torch is imported."""
        configure_threads(self.n_jobs)
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; after a failure the others continue, unless ``sweep.fail_fast`` is set."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        waiting = [(initial_job_idx + index, list(overrides)) for index, overrides in enumerate(job_overrides)]
        running: list[RunningJob] = []
        returns: list[JobReturn] = []
        try:
            while running or (waiting and not self.stopped):
                while waiting and len(running) < self.n_jobs and not self.stopped:
                    running.append(self._start(*waiting.pop(0)))
                ended = wait([job.process.sentinel for job in running])
                for job in [job for job in running if job.process.sentinel in ended]:
                    running.remove(job)
                    returns.append(self._finish(job))
                    self.stopped |= returns[-1].status is JobStatus.FAILED and self.config.sweep.fail_fast
        except KeyboardInterrupt:
            self.stop()
            for job in running:
                self._finish(job)
            raise
        return returns

    def stop(self) -> None:
        """Start no more jobs in any thread, and let the running ones save and exit.

        They are sent SIGTERM. Ctrl-C has reached them already, and a second one would not let them save.
        """
        self.stopped = True
        with self.lock:
            for job in self.running:
                job.process.terminate()

    def _start(self, number: int, overrides: list[str]) -> RunningJob:
        with self.lock:
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
            job = RunningJob(number, config, process)
            self.running.add(job)
        return job

    def _finish(self, job: RunningJob) -> JobReturn:
        """Return Hydra's result of a job that has ended; write the status of one that was killed."""
        job.process.join()
        with self.lock:
            self.running.discard(job)
        code, run_dir = job.process.exitcode, job.run_dir
        status = run_dir.read_status()
        if code not in (0, FAILED, REFUSED, INTERRUPTED, TERMINATED):
            try:
                run_dir.write_status(Status.failed, step=status.get("step", 0), error=describe_exit(code))
            except OSError as error:  # other jobs continue on a full disk
                log.warning("%s: %s; its status could not be written: %s", run_dir.path, describe_exit(code), error)
        outcome = run_dir.read_status().get("status", describe_exit(code))
        log.info("%s %s after %s", run_dir.path.name, outcome, format_duration(time.monotonic() - job.since))
        result = JobReturn(overrides=[], cfg=job.config, working_dir=os.getcwd())
        result.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        result.return_value = RuntimeError(f"{run_dir.path}: {outcome}") if code else None
        return result
