"""``hydra/launcher=slurm``: run each job in its own allocation, and requeue and resume it at the time limit.

It uses submitit directly, because hydra-submitit-launcher waits for sacct, forever on clusters without accounting, and
may requeue a job while it saves a checkpoint.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from afqmc.run_dir import RunDir, Status
from afqmc.sweeps.results_table import PLANNED, status_of
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.files import read_json_or_empty, write_json
from hydra_plugins.afqmc_sweeps._job_process import compose_job
from hydra_plugins.afqmc_sweeps._slurm_node import CANCELLED, COMPLETED, ENDED, PENDING, REQUEUED, SlurmTask, job_states

log = logging.getLogger(__name__)

_FOLDER, _JOBS = ".slurm", "jobs.json"
_MAX_POLL_S = 30  # between two queries to Slurm; the first ones are 1 s apart
_NFS_DELAY_S = 60  # until files written on a node are surely visible here


class SlurmLauncher(Launcher):
    """Submits jobs as an array, and waits for them. If the wait is interrupted, the jobs continue in Slurm.

    Args:
        n_jobs: The number of concurrent jobs.
        time: Time limit of an allocation in minutes; a run may take several allocations.
        signal_delay_s: How many seconds before the time limit a run is signalled to save.
        max_num_timeout: How often a job is requeued at the time limit; pre-emptions are not counted.
        nodes: Nodes per job.
        tasks_per_node: Processes per node, which together form one run.
        cpus_per_task: Cores per process.
        parameters: Other parameters of submitit's ``SlurmExecutor``; None leaves the choice to Slurm.
    """

    def __init__(
        self,
        n_jobs: int,
        time: int,
        signal_delay_s: int,
        max_num_timeout: int,
        nodes: int,
        tasks_per_node: int,
        cpus_per_task: int,
        **parameters: Any,
    ) -> None:
        counts = {"n_jobs": n_jobs, "time": time, "nodes": nodes, "tasks_per_node": tasks_per_node}
        for key, value in (counts | {"cpus_per_task": cpus_per_task}).items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"hydra.launcher.{key}={value}: must be >= 1")
        if not 0 < signal_delay_s < time * 60:
            raise InputError(
                f"hydra.launcher.signal_delay_s={signal_delay_s}: must be > 0 and less than hydra.launcher.time={time}"
                " minutes"
            )
        plain: Any = OmegaConf.to_container(OmegaConf.create(parameters))
        self.n_jobs, self.processes, self.max_num_timeout = n_jobs, nodes * tasks_per_node, max_num_timeout
        self.parameters = {key: value for key, value in plain.items() if value is not None} | {
            "nodes": nodes, "ntasks_per_node": tasks_per_node,  # else srun may start one task per core
            "time": time, "signal_delay_s": signal_delay_s, "cpus_per_task": cpus_per_task, "array_parallelism": n_jobs,
            "srun_args": [f"--cpus-per-task={cpus_per_task}"],  # since Slurm 22.05 srun ignores that of sbatch
        }  # fmt: skip
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes, and find the jobs that were submitted before.

        Raises:
            InputError: If Slurm is not available, or the parameters are invalid.
        """
        self.hydra_context, self.config = hydra_context, config
        self.sweep = Path(config.hydra.sweep.dir).absolute()
        self.executor = self._build_executor()
        try:
            known_states = job_states()
        except OSError as error:
            raise InputError(f"hydra/launcher=slurm: {error}") from error
        self.jobs = dict[str, str]()  # Slurm's job ids by directory
        for directory, job_id in read_json_or_empty(self.sweep / _FOLDER / _JOBS).items():
            if job_id in known_states and known_states[job_id] not in ENDED:
                self.jobs[directory] = job_id
            elif job_id in known_states:  # ended since the last call of the sweep
                self._finish(RunDir(self.sweep / directory), job_id, known_states[job_id])

    @property
    def external_jobs(self) -> set[str]:
        """The directories of the jobs in Slurm, submitted by any call of the sweep."""
        return set(self.jobs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs that are not in Slurm yet, and wait until all have ended."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = [
            compose_job(self.hydra_context, self.config, number, overrides)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        with self.lock:
            if new := [config for config in configs if config.hydra.sweep.subdir not in self.jobs]:
                self._submit(new)
            launched = {config.hydra.sweep.subdir: self.jobs[config.hydra.sweep.subdir] for config in configs}
        if len(new) < len(configs):
            log.info("%d jobs are already in Slurm", len(configs) - len(new))
        try:
            self._wait(launched)
        except KeyboardInterrupt:
            self.stop()
            raise
        return []

    def stop(self) -> None:
        """Stop waiting, in all threads."""
        with self.lock:
            if self.jobs and not self.stopped.is_set():
                job_ids = sorted({job_id.partition("_")[0] for job_id in self.jobs.values()})
                log.info("submitted jobs stay in Slurm; rerun the same command to wait for them; to cancel them:")
                log.info("scancel %s", " ".join(job_ids))
            self.stopped.set()

    def _build_executor(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise InputError("hydra/launcher=slurm: needs submitit; pip install 'afqmc[slurm]'") from error
        folder = self.sweep / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the pickled jobs in it contain secrets
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=self.max_num_timeout)
            options: dict[str, Any] = {"requeue": True, **self.parameters.pop("additional_parameters", {})}
            executor.update_parameters(job_name=self.sweep.name, additional_parameters=options, **self.parameters)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"hydra/launcher=slurm: {first_line(error)}") from error
        return executor

    def _submit(self, configs: Sequence[DictConfig]) -> None:
        from submitit.core.utils import FailedJobError

        try:
            with self.executor.batch():
                submitted = [self.executor.submit(SlurmTask(config, self.hydra_context)) for config in configs]
        except (FailedJobError, subprocess.SubprocessError, OSError) as error:
            raise InputError(f"hydra/launcher=slurm: sbatch: {first_line(error)}") from error
        for config, job in zip(configs, submitted, strict=True):
            self.jobs[config.hydra.sweep.subdir] = job.job_id
            log.info("%s is Slurm job %s", config.hydra.sweep.subdir, job.job_id)
        write_json(self.sweep / _FOLDER / _JOBS, dict(self.jobs))

    def _wait(self, jobs: dict[str, str]) -> None:
        """Wait until Slurm reports that each job has ended."""
        pending, seen, since = dict(jobs), dict.fromkeys(jobs.values(), PENDING), time.monotonic()
        while pending and not self.stopped.wait(min(_MAX_POLL_S, 1 + (time.monotonic() - since) / 60)):
            try:
                known_states = job_states()
            except OSError as error:
                log.warning("%s; trying again", error)
                continue
            for directory, job_id in list(pending.items()):
                # Slurm forgets an array's job at once if it is cancelled before it starts
                state = known_states.get(job_id, CANCELLED if seen[job_id] == PENDING else "UNKNOWN")
                if state != seen[job_id]:
                    since = time.monotonic()
                    log.info("%s %s", directory, state.lower())
                seen[job_id] = state
                if state in (*ENDED, "UNKNOWN"):
                    self._finish(RunDir(self.sweep / directory), job_id, state)
                    del pending[directory]
                    with self.lock:
                        self.jobs.pop(directory)

    def _finish(self, run_dir: RunDir, job_id: str, state: str) -> None:
        """Write the status of a job that was ended from outside and could not write it."""
        since = time.monotonic()
        while state == COMPLETED and status_of(run_dir) in _UNFINISHED and time.monotonic() - since < _NFS_DELAY_S:
            time.sleep(1)
        recorded = run_dir.read_status()
        step = recorded.get("step", 0)
        if state == CANCELLED and status_of(run_dir) in _UNFINISHED:
            run_dir.write_status(Status.cancelled, step=step, error=f"Slurm job {job_id}: cancelled")
        elif status_of(run_dir) == PLANNED or recorded.get("status") == Status.running.value:
            status = Status.interrupted if state in (*REQUEUED, "UNKNOWN") else Status.failed
            stderr = shlex.quote(str(self.sweep / _FOLDER / f"{job_id}_0_log.err"))
            run_dir.write_status(status, step=step, error=f"Slurm job {job_id}: {state}; see {stderr}")


_UNFINISHED = (PLANNED, Status.running.value, Status.interrupted.value)
