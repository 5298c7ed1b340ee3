"""A job of Slurm's, from its first line to its requeue, and what Slurm says of jobs."""

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

_PATIENCE_S = 60

RUNNING, PENDING, COMPLETED, CANCELLED = "RUNNING", "PENDING", "COMPLETED", "CANCELLED"
TAKEN_AWAY = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")  # the job itself did nothing wrong
ENDED = (COMPLETED, CANCELLED, *TAKEN_AWAY, "FAILED", "OUT_OF_MEMORY", "REVOKED")


@dataclass
class OnNode:
    """What submitit calls on a node, after each requeue again: the run then goes on in its directory.

    Attributes:
        config: The job's own, with Hydra's node.
        context: The sweep's.
    """

    config: DictConfig
    context: HydraContext

    def __call__(self) -> None:
        """Run it to its end, or until Slurm asks for the node; of several tasks the first leads, and requeues.

        submitit's own answer to a signal, a requeue from within its handler, would cut a save in two. The run saves and
        ends first, as it does at any signal; then the handler is called.
        """
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # the whole node may be in sight
            os.environ.setdefault("OMP_NUM_THREADS", cores)
        configure_threads()
        export_torchrun_env()
        place = get_coordinator()
        if not place.rank.is_main:
            from afqmc.runner.worker import (
                run_worker,  # imports torch, and Hydra imports this module whatever it is asked
            )

            code = run_command(run_worker)
            if code == TERMINATED:  # all_reduce_max with the first, whose end a failure here could cut short
                return
        else:
            code = run_in_worker(self.config, self.context, os.getcwd())
            place.dismiss_workers()
        if code == TERMINATED and own_state() == RUNNING:
            requeue(signal.SIGUSR2, None)
        if code:
            exit_now(code)  # for Slurm, too, it has failed then

    def checkpoint(self) -> Any:
        """What is to be called after a requeue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def own_state() -> str:
    """Of the job that this process is.

    It still is RUNNING when its time will soon be up, or within the grace of a pre-emption: then to go on is its own
    affair. After ``scancel``, and where Slurm requeues a job itself, it is COMPLETING.
    """
    from submitit import JobEnvironment

    return _squeue("-j", JobEnvironment().job_id, "-o", "%T").strip()  # SLURM_JOB_ID may name the whole array


def states() -> dict[str, str]:
    """Of this person's jobs by their ids, as ``12`` or, of an array, ``12_3``; ended ones for some minutes more.

    By squeue: sacct needs a database, which not every cluster has.

    Raises:
        OSError: when Slurm does not answer.
    """
    found = _squeue("--me", "-r", "-t", "all", "-o", "%i %T")
    return dict(line.split(maxsplit=1) for line in found.splitlines())


def _squeue(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["squeue", "-h", *arguments], capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        ).stdout
    except subprocess.SubprocessError as error:
        told = str(getattr(error, "stderr", None) or error).strip()
        raise OSError(f"squeue: {told}") from error
