"""``hydra/launcher=ray``: each job in a fresh process of Ray's, which shares out cores and GPUs, here or on a cluster.

On Ray itself: hydra-ray-launcher asks for an old cloudpickle, and brings a way to start clusters that is none of ours.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from afqmc.run_dir import RunDir, Status
from afqmc.sweeps.results_table import status_of
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.process import usable_cores
from hydra_plugins.afqmc_sweeps._job_process import run_in_worker

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_SAVES_S = 60  # for jobs that are told to end


class RayLauncher(Launcher):
    """Hands Ray all jobs; it runs as many at once as there is room for.

    Args:
        address: Of a cluster that runs, ``auto`` for this machine's; None starts one on this machine, for as long as
            the sweep lasts.
        num_cpus: Cores of a job, and its threads.
        num_gpus: Of a job; 0.25 for four jobs on each GPU. Ray shows a job its own GPUs alone, but bounds no memory.
    """

    def __init__(self, address: Optional[str], num_cpus: float, num_gpus: float) -> None:
        for key, value, least in (("num_cpus", num_cpus, 1), ("num_gpus", num_gpus, 0)):
            if not isinstance(value, int | float) or value < least:
                raise InputError(f"hydra.launcher.{key}={value}: must be >= {least}")
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise InputError(f"hydra.launcher.num_gpus={num_gpus}: a part of one GPU, or whole ones")
        self.address, self.needs = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.turn, self.stopped = threading.Lock(), False
        self.running = dict[Any, RunDir]()  # of all threads, by Ray's reference

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over, and Ray, started or found.

        Raises:
            InputError: where there is none, or no node of it has room for a job.
        """
        self.hydra_context, self.config = hydra_context, config
        self.ray = _started(self.address)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.n_jobs = sum(self._room(node) for node in nodes)
        if not self.n_jobs:
            needs = " ".join(f"hydra.launcher.{key}={value}" for key, value in self.needs.items())
            raise InputError(f"{needs}: no machine has so many; the largest has {_told(max(nodes, key=_size))}")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them all; a job that fails, or whose process is killed, leaves the others running."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        left = [self._start(initial_job_idx + place, list(one)) for place, one in enumerate(job_overrides)]
        try:
            while left:
                ended, left = self.ray.wait(left, timeout=0)  # while it waits, SIGTERM would become a Ctrl-C
                for reference in ended:
                    self._conclude(reference)
                time.sleep(0 if ended else _EVERY_S)
        except KeyboardInterrupt:
            self.stop()
            for reference in self.ray.wait(left, num_returns=len(left), timeout=_SAVES_S)[0]:
                self._conclude(reference)
            raise
        return []

    def stop(self) -> None:
        """Start nothing more, and have what runs save and end; for launches in other threads too."""
        with self.turn:
            if self.stopped:  # a second Ctrl-C would not let them save
                return
            self.stopped = True
            for reference in self.running:
                self.ray.cancel(reference)  # as Ctrl-C

    def _room(self, node: dict[str, float]) -> int:
        """Jobs that a machine runs at once."""
        wanted = (("CPU", self.needs["num_cpus"]), ("GPU", self.needs["num_gpus"]))
        return min(int(node.get(key, 0) / each) for key, each in wanted if each)

    def _start(self, number: int, overrides: list[str]) -> Any:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        run = self.ray.remote(**self.needs, max_calls=1, max_retries=0)(run_in_worker)  # a fresh process for each call
        with self.turn:
            reference = run.remote(config, self.hydra_context, os.getcwd())
            self.running[reference] = RunDir(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
        return reference

    def _conclude(self, reference: Any) -> None:
        """Say how a job ended; one that could not do so itself is marked as failed."""
        with self.turn:
            run_dir = self.running.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.TaskCancelledError:
            pass
        except self.ray.exceptions.RayError as error:
            step = run_dir.read_status().get("step", 0)
            run_dir.write_status(Status.failed, step=step, error=f"{type(error).__name__}: {first_line(error)}")
        log.info("%s %s", run_dir.path.name, status_of(run_dir))


def _started(address: Optional[str]) -> Any:
    """Ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns that this is to change
    try:
        import ray
    except ImportError as error:
        raise InputError("hydra/launcher=ray: needs Ray; pip install 'afqmc[ray]'") from error
    own: dict[str, Any] = {} if address else {"num_cpus": usable_cores(), "include_dashboard": False}
    handled = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"hydra.launcher.address={address}: {first_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, handled)
    return ray


def _size(node: dict[str, float]) -> tuple[float, float]:
    return node.get("GPU", 0), node.get("CPU", 0)


def _told(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs"
