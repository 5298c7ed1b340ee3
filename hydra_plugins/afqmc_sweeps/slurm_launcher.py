"""``hydra/launcher=slurm``: each job in an allocation of its own, requeued and gone on with when its time is up.

On submitit itself: hydra-submitit-launcher waits by sacct, for ever where there is no accounting, and requeues in the
midst of a save.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from afqmc.run_dir import RunDir, Status
from afqmc.sweeps.results_table import PLANNED, status_of
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.files import read_json, write_json
from hydra_plugins.afqmc_sweeps._slurm_node import CANCELLED, COMPLETED, ENDED, PENDING, TAKEN_AWAY, OnNode, states

log = logging.getLogger(__name__)

_FOLDER, _JOBS = ".slurm", "jobs.json"
_SLOWEST_S = 30  # between two questions to Slurm; at first they come each second
_UNSEEN_S = 60  # until files written on a node are seen here for certain: what NFS may take


class SlurmLauncher(Launcher):
    """Submits jobs as an array, and waits for them; when the waiting is ended, they stay with Slurm.

    Args:
        n_jobs: At once.
        time: Minutes of an allocation; a run may take several.
        signal_delay_s: How long before the end of one a run is told to save.
        nodes: Of each job.
        tasks_per_node: Processes of each job on each of its nodes; together they are one run.
        max_num_timeout: How often a job whose time was up is requeued; pre-emptions are not counted.
        parameters: Any other of submitit's ``SlurmExecutor``; None leaves it to Slurm.
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
        least = {"n_jobs": n_jobs, "time": time, "nodes": nodes, "tasks_per_node": tasks_per_node}
        for key, value in (least | {"cpus_per_task": cpus_per_task}).items():
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
            "nodes": nodes, "ntasks_per_node": tasks_per_node,  # else srun may start one for each core of a node
            "time": time, "signal_delay_s": signal_delay_s, "cpus_per_task": cpus_per_task, "array_parallelism": n_jobs,
            "srun_args": [f"--cpus-per-task={cpus_per_task}"],  # srun takes no other's word for it since Slurm 22.05
        }  # fmt: skip
        self.turn, self.stopped = threading.Lock(), threading.Event()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over, and which jobs Slurm has already.

        Raises:
            InputError: where there is no Slurm, or what is asked is not possible.
        """
        self.hydra_context, self.config = hydra_context, config
        self.sweep = Path(config.hydra.sweep.dir).absolute()
        self.executor = self._made()
        try:
            known = states()
        except OSError as error:
            raise InputError(f"hydra/launcher=slurm: {error}") from error
        self.jobs = dict[str, str]()  # their ids in Slurm, by directory
        for directory, number in read_json(self.sweep / _FOLDER / _JOBS).items():
            if number in known and known[number] not in ENDED:
                self.jobs[directory] = number
            elif number in known:  # while nobody waited for it
                self._conclude(RunDir(self.sweep / directory), number, known[number])

    @property
    def kept(self) -> set[str]:
        """The directories of the jobs that Slurm has, of whichever call of the sweep."""
        return set(self.jobs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what Slurm does not have yet; come back when all of it has ended."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = [self._composed(initial_job_idx + place, list(one)) for place, one in enumerate(job_overrides)]
        with self.turn:
            if new := [config for config in configs if config.hydra.sweep.subdir not in self.jobs]:
                self._submit(new)
            mine = {config.hydra.sweep.subdir: self.jobs[config.hydra.sweep.subdir] for config in configs}
        if len(new) < len(configs):
            log.info("%d jobs are with Slurm already", len(configs) - len(new))
        try:
            self._wait(mine)
        except KeyboardInterrupt:
            self.stop()
            raise
        return []

    def stop(self) -> None:
        """Wait no longer, in other threads either."""
        with self.turn:
            if self.jobs and not self.stopped.is_set():
                numbers = sorted({number.partition("_")[0] for number in self.jobs.values()})
                log.info("what was submitted stays with Slurm, and the same command waits for it again; to end it:")
                log.info("scancel %s", " ".join(numbers))
            self.stopped.set()

    def _made(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise InputError("hydra/launcher=slurm: needs submitit; pip install 'afqmc[slurm]'") from error
        folder = self.sweep / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # jobs are pickled in there, secrets and all
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=self.max_num_timeout)
            more: dict[str, Any] = {"requeue": True, **self.parameters.pop("additional_parameters", {})}
            executor.update_parameters(job_name=self.sweep.name, additional_parameters=more, **self.parameters)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"hydra/launcher=slurm: {first_line(error)}") from error
        return executor

    def _composed(self, number: int, overrides: list[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _submit(self, configs: Sequence[DictConfig]) -> None:
        from submitit.core.utils import FailedJobError

        try:
            with self.executor.batch():
                submitted = [self.executor.submit(OnNode(config, self.hydra_context)) for config in configs]
        except (FailedJobError, subprocess.SubprocessError, OSError) as error:
            raise InputError(f"hydra/launcher=slurm: sbatch: {first_line(error)}") from error
        for config, job in zip(configs, submitted, strict=True):
            self.jobs[config.hydra.sweep.subdir] = job.job_id
            log.info("%s is Slurm's job %s", config.hydra.sweep.subdir, job.job_id)
        write_json(self.sweep / _FOLDER / _JOBS, dict(self.jobs))

    def _wait(self, jobs: dict[str, str]) -> None:
        """Until Slurm says of each that it has ended."""
        left, seen, since = dict(jobs), dict.fromkeys(jobs.values(), PENDING), time.monotonic()
        while left and not self.stopped.wait(min(_SLOWEST_S, 1 + (time.monotonic() - since) / 60)):
            try:
                known = states()
            except OSError as error:
                log.warning("%s; it is asked again", error)
                continue
            for directory, number in list(left.items()):
                # of an array, a job that was cancelled before it began is forgotten at once
                state = known.get(number, CANCELLED if seen[number] == PENDING else "UNKNOWN")
                if state != seen[number]:
                    since = time.monotonic()
                    log.info("%s %s", directory, state.lower())
                seen[number] = state
                if state in (*ENDED, "UNKNOWN"):
                    self._conclude(RunDir(self.sweep / directory), number, state)
                    del left[directory]
                    with self.turn:
                        self.jobs.pop(directory)

    def _conclude(self, run_dir: RunDir, number: str, state: str) -> None:
        """Record what a job that was ended from outside could not say itself."""
        since = time.monotonic()
        while state == COMPLETED and status_of(run_dir) in _NOT_OVER and time.monotonic() - since < _UNSEEN_S:
            time.sleep(1)
        found = run_dir.read_status()
        if state == CANCELLED and status_of(run_dir) in _NOT_OVER:
            run_dir.write_status(Status.cancelled, step=found.get("step", 0), error=f"Slurm's job {number}: cancelled")
        elif status_of(run_dir) == PLANNED or found.get("status") == Status.running.value:
            status = Status.interrupted if state in (*TAKEN_AWAY, "UNKNOWN") else Status.failed
            printed = shlex.quote(str(self.sweep / _FOLDER / f"{number}_0_log.err"))
            run_dir.write_status(
                status, step=found.get("step", 0), error=f"Slurm's job {number}: {state}; see {printed}"
            )


_NOT_OVER: tuple[Optional[str], ...] = (PLANNED, Status.running.value, Status.interrupted.value)
