"""Run one job in a process that runs nothing else."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.utils import JobRuntime, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from tqdm import tqdm

from afqmc.cli import exit_now, run_command
from afqmc.config import register
from afqmc.run_dir import RunDir
from hydra_plugins.afqmc_sweeps._subprocesses import end_with_parent

_OUTPUT = "console.log"


@dataclass(eq=False)
class RunningJob:
    """A running job and its process."""

    number: int
    config: DictConfig
    process: Any
    since: float = field(default_factory=time.monotonic)

    @property
    def run_dir(self) -> RunDir:
        return RunDir(Path(self.config.hydra.sweep.dir) / self.config.hydra.sweep.subdir)


def run_in_process(task_function: TaskFunction, config: DictConfig, context: HydraContext, to_file: bool) -> None:
    """Run a job in a child process, which exits afterwards and is terminated with its parent."""
    end_with_parent()
    exit_now(run_in_this_process(task_function, config, context, to_file))


def run_in_worker(config: DictConfig, context: HydraContext, directory: str) -> int:
    """Run a job in a fresh worker process of Ray or Slurm; return the exit code.

    Args:
        config: The job's config, with the ``hydra`` node.
        context: Hydra's context of the sweep.
        directory: The working directory of the sweep's process.
    """
    from afqmc.config.hydra_app import HydraTask
    from afqmc.run import run  # the sweep's task function is from __main__, which a worker cannot unpickle

    os.chdir(directory)
    return run_in_this_process(HydraTask(run), config, context, to_file=True)


def run_in_this_process(task_function: TaskFunction, config: DictConfig, context: HydraContext, to_file: bool) -> int:
    """Run a job in this process, which must run nothing else; return the exit code.

    Args:
        task_function: Hydra's task function.
        config: The job's config, with the ``hydra`` node.
        context: Hydra's context of the sweep.
        to_file: Whether to redirect output to console.log in the job's directory.
    """
    tqdm.set_lock(threading.RLock())  # the default is a multiprocessing lock, reported as leaked if the job is killed
    _set_up_hydra(config)
    if to_file:
        directory = Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    return run_command(lambda: _run_job(task_function, config, context))


def _set_up_hydra(config: DictConfig) -> None:
    """Do what ``hydra.main`` does in the process where it is called."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", config.hydra.job.name)
    register()


def _run_job(task_function: TaskFunction, config: DictConfig, context: HydraContext) -> int:
    raised: list[BaseException] = []

    def task(node: DictConfig) -> Any:
        try:
            return task_function(node)
        except BaseException as error:
            raised.append(error)
            return None

    run_job(
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )
    for error in raised:
        raise error
    return 0
