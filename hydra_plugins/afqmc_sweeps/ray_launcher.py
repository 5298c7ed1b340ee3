"""``hydra/launcher=ray``: run each job in a new Ray process; Ray assigns cores and GPUs, here or on a cluster.

It uses Ray directly, because hydra-ray-launcher requires an old cloudpickle, and starts clusters, which is not needed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

_POLL_S = 0.5
_SAVE_TIMEOUT_S = 60  # for cancelled jobs to save and exit


class RayLauncher(Launcher):
    """Submits all jobs to Ray, which runs as many at once as its resources allow.

    Args:
        address: Address of a running cluster, or ``auto`` for the one on this machine. None starts Ray on this machine
            for the duration of the sweep.
        num_cpus: Cores, and so threads, per job.
        num_gpus: GPUs per job; 0.25 for four jobs on each GPU. A job sees only its own GPUs, but Ray does not limit
            its GPU memory.
    """

    def __init__(self, address: str | None, num_cpus: float, num_gpus: float) -> None:
        for key, value, minimum in (("num_cpus", num_cpus, 1), ("num_gpus", num_gpus, 0)):
            if not isinstance(value, int | float) or value < minimum:
                raise InputError(f"hydra.launcher.{key}={value}: must be >= {minimum}")
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise InputError(f"hydra.launcher.num_gpus={num_gpus}: must be a whole number if it is > 1")
        self.address, self.resources = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.lock, self.stopped = threading.Lock(), False
        self.running = dict[Any, RunDir]()  # from all threads that launch, by Ray's reference

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes, and connect to Ray.

        Raises:
            InputError: If Ray is not available, or no node has the resources for a job.
        """
        self.hydra_context, self.config = hydra_context, config
        self.ray = _connect(self.address)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.n_jobs = sum(self._capacity(node) for node in nodes)
        if not self.n_jobs:
            requested = " ".join(f"hydra.launcher.{key}={value}" for key, value in self.resources.items())
            raise InputError(f"{requested}: more than any node has; the largest has {_describe(max(nodes, key=_size))}")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; if one fails or is killed, the others continue."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        pending = [
            self._start(initial_job_idx + index, list(overrides)) for index, overrides in enumerate(job_overrides)
        ]
        try:
            while pending:
                # poll, because a blocking wait turns SIGTERM into a KeyboardInterrupt
                ended, pending = self.ray.wait(pending, timeout=0)
                for reference in ended:
                    self._finish(reference)
                time.sleep(0 if ended else _POLL_S)
        except KeyboardInterrupt:
            self.stop()
            for reference in self.ray.wait(pending, num_returns=len(pending), timeout=_SAVE_TIMEOUT_S)[0]:
                self._finish(reference)
            raise
        return []

    def stop(self) -> None:
        """Cancel the jobs of all threads, so that the running ones save and exit."""
        with self.lock:
            if self.stopped:  # a second interrupt would not let them save
                return
            self.stopped = True
            for reference in self.running:
                self.ray.cancel(reference)  # raises KeyboardInterrupt in the job

    def _capacity(self, node: dict[str, float]) -> int:
        """Return the number of jobs that a node can run at once."""
        needed = (("CPU", self.resources["num_cpus"]), ("GPU", self.resources["num_gpus"]))
        return min(int(node.get(key, 0) / amount) for key, amount in needed if amount)

    def _start(self, number: int, overrides: list[str]) -> Any:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        run = self.ray.remote(**self.resources, max_calls=1, max_retries=0)(run_in_worker)  # a new process per call
        with self.lock:
            reference = run.remote(config, self.hydra_context, os.getcwd())
            self.running[reference] = RunDir(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
        return reference

    def _finish(self, reference: Any) -> None:
        """Log the status of a job that has ended; mark one that could not write its own as failed."""
        with self.lock:
            run_dir = self.running.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.TaskCancelledError:
            pass
        except self.ray.exceptions.RayError as error:
            step = run_dir.read_status().get("step", 0)
            run_dir.write_status(Status.failed, step=step, error=f"{type(error).__name__}: {first_line(error)}")
        log.info("%s %s", run_dir.path.name, status_of(run_dir))


def _connect(address: str | None) -> Any:
    """Start or connect to Ray, and return its module."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that the default will change
    try:
        import ray
    except ImportError as error:
        raise InputError("hydra/launcher=ray: needs Ray; pip install 'afqmc[ray]'") from error
    options: dict[str, Any] = {} if address else {"num_cpus": usable_cores(), "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)  # replaced by ray.init
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"hydra.launcher.address={address}: {first_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray


def _size(node: dict[str, float]) -> tuple[float, float]:
    return node.get("GPU", 0), node.get("CPU", 0)


def _describe(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs"
