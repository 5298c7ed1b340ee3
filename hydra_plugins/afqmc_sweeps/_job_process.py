"""One job in a process that is its alone: from the first line to the exit code."""

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
class Running:
    """A job in its process."""

    number: int
    config: DictConfig
    process: Any
    since: float = field(default_factory=time.monotonic)

    @property
    def run_dir(self) -> RunDir:
        return RunDir(Path(self.config.hydra.sweep.dir) / self.config.hydra.sweep.subdir)


def run_in_process(task_function: TaskFunction, config: DictConfig, context: HydraContext, to_file: bool) -> None:
    """In a process that another one started for it, and which ends with that."""
    end_with_parent()
    exit_now(exit_code_of(task_function, config, context, to_file))


def run_in_worker(config: DictConfig, context: HydraContext, directory: str) -> int:
    """In a process of somebody else's, which has run nothing before; returns the exit code.

    Args:
        config: The job's own, with Hydra's node.
        context: The sweep's.
        directory: That of the sweep's process.
    """
    from afqmc.config.hydra_app import HydraTask
    from afqmc.run import run  # Hydra was given the one of __main__, which other processes do not have

    os.chdir(directory)
    return exit_code_of(HydraTask(run), config, context, to_file=True)


def exit_code_of(task_function: TaskFunction, config: DictConfig, context: HydraContext, to_file: bool) -> int:
    """Run a job; nothing else has been run in this process, or will be.

    Args:
        task_function: Of Hydra's.
        config: The job's own, with Hydra's node.
        context: The sweep's.
        to_file: Whether what it prints goes to console.log in its directory.
    """
    tqdm.set_lock(threading.RLock())  # its own is one of several processes, and is told to leak when this one is killed
    _know_hydra(config)
    if to_file:
        directory = Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    return run_command(lambda: _run_job(task_function, config, context))


def _know_hydra(config: DictConfig) -> None:
    """What ``hydra.main`` sets up in the process that it is called in."""
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
