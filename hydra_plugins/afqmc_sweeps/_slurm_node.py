"""Run a job on a Slurm node, requeue it, and query Slurm for the states of jobs."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig

from afqmc.cli import TERMINATED, exit_now, run_command
from afqmc.distributed.rank import export_torchrun_env
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.utils.process import configure_threads
from hydra_plugins.afqmc_sweeps._job_process import run_in_worker

_QUERY_TIMEOUT_S = 60

RUNNING, PENDING, COMPLETED, CANCELLED = "RUNNING", "PENDING", "COMPLETED", "CANCELLED"
REQUEUED = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")  # ended by Slurm, not by the job
ENDED = (COMPLETED, CANCELLED, *REQUEUED, "FAILED", "OUT_OF_MEMORY", "REVOKED")


@dataclass
class SlurmTask:
    """The callable that submitit runs on a node. After each requeue it is called again, and resumes the run.

    Attributes:
        config: The job's config, with the ``hydra`` node.
        context: Hydra's context of the sweep.
    """

    config: DictConfig
    context: HydraContext

    def __call__(self) -> None:
        """Run the job until it ends or is signalled; rank 0 runs the experiment, and requeues the job.

        submitit requeues inside its signal handler, which could interrupt a checkpoint in progress. So the run first
        handles the signal, saves and exits, and submitit's handler is called afterwards.
        """
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # the job may see all cores of the node
            os.environ.setdefault("OMP_NUM_THREADS", cores)
        configure_threads()
        export_torchrun_env()
        coordinator = get_coordinator()
        if not coordinator.rank.is_main:
            from afqmc.runner.worker import run_worker  # imports torch, unlike this module, which Hydra always imports

            code = run_command(run_worker)
            if code == TERMINATED:  # by agreement of all ranks; failing here could end rank 0 before it requeues
                return
        else:
            code = run_in_worker(self.config, self.context, os.getcwd())
            coordinator.dismiss_workers()
        if code == TERMINATED and own_state() == RUNNING:
            requeue(signal.SIGUSR2, None)
        if code:
            exit_now(code)  # so that Slurm records a failure

    def checkpoint(self) -> Any:
        """Return what submitit calls after a requeue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def own_state() -> str:
    """Return the state of the job that this process belongs to.

    It is RUNNING if the signal announced the time limit or a pre-emption. Then the job must requeue itself. It is
    COMPLETING after ``scancel``, or if Slurm requeues the job.
    """
    from submitit import JobEnvironment

    return _squeue("-j", JobEnvironment().job_id, "-o", "%T").strip()  # SLURM_JOB_ID may name the whole array


def job_states() -> dict[str, str]:
    """Return the states of the user's jobs by id, such as ``12`` or ``12_3``; ended jobs stay for some minutes.

    This uses squeue, because sacct needs a database, which not every cluster has.

    Raises:
        OSError: If squeue fails.
    """
    output = _squeue("--me", "-r", "-t", "all", "-o", "%i %T")
    return dict(line.split(maxsplit=1) for line in output.splitlines())


def _squeue(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["squeue", "-h", *arguments], capture_output=True, text=True, check=True, timeout=_QUERY_TIMEOUT_S
        ).stdout
    except subprocess.SubprocessError as error:
        message = str(getattr(error, "stderr", None) or error).strip()
        raise OSError(f"squeue: {message}") from error
