"""Start the measuring processes one at a time, and read their results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.plan import COMMANDS, SWEEP_RUNS, Measurement

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 900.0  # seconds until a process is killed
_WAYS = {  # of running a sweep: (concurrent processes, threads per process or None for the default)
    "one process": (1, None),
    "two, 1 thread each": (2, 1),
    "two, all threads each": (2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
}


class Bench:
    """Runs measurements with given data and model, in a temporary directory."""

    def __init__(self, data: Path, model_dir: Path, scratch: Path) -> None:
        self.data, self.model_dir, self.scratch = data.absolute(), model_dir.absolute(), scratch
        self.cache = scratch / "cache"

    def measure(self, measurement: Measurement) -> dict[str, Any]:
        """Return the results of a measurement, or ``{"error": ...}``."""
        if measurement.kind == "command":
            return self._time_runs([COMMANDS[measurement.contestant]], {})
        if measurement.kind == "sweep":
            return self._sweep(measurement)
        if measurement.fresh:
            shutil.rmtree(self.cache, ignore_errors=True)
        return self._worker(measurement.kind, measurement.model, measurement.contestant, measurement.sizes)

    def weights(self, model: str) -> Path:
        """Return the directory of a model's random weights; create it on first use."""
        target = self.scratch / f"weights-{model}"
        if not target.exists():
            result = self._worker("checkpoint", model, "", {})
            if "error" in result:
                raise RuntimeError(result["error"])
        return target

    def _worker(self, kind: str, model: str, contestant: str, sizes: dict[str, Any]) -> dict[str, Any]:
        target = self.scratch / f"weights-{model}" if kind == "checkpoint" else self.weights(model)
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        work: dict[str, Any] = {
            "data": str(self.data), "model": str(target), "pairs": 32, "batch_size": 32, "epochs": 2,
            "max_steps": None, "eval_pairs": 32, "scratch": str(directory), **sizes,
        }  # fmt: skip
        job = {"kind": kind, "contestant": contestant, "model": model, "model_dir": str(self.model_dir), "work": work}
        file = directory / "job.json"
        try:
            file.write_text(json.dumps(job | {"spawned": time.monotonic()}), encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks.worker", str(file)]
            error = wait_for_all([start_process(command, directory, self._env())])
            return {"error": error} if error else json.loads((directory / "job.result.json").read_text())
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _sweep(self, measurement: Measurement) -> dict[str, Any]:
        """Time short runs that differ in their seed, divided among concurrent sweep processes."""
        weights, (processes, threads) = self.weights(measurement.model), _WAYS[measurement.contestant]
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        pairs, runs_per_process = measurement.sizes["pairs"], SWEEP_RUNS // processes
        commands = [
            [
                "-m", f"seed={','.join(str(index * runs_per_process + seed) for seed in range(runs_per_process))}",
                f"dataset.path={self.data}", f"dataset.max_train_samples={pairs}", "dataset.max_dev_samples=64",
                "dataset.max_test_samples=64", f"model.name_or_path={weights}", "epochs=1", "tracker=none",
                f"batch_size={measurement.sizes['batch_size']}", f"hydra.sweep.dir={directory / str(index)}",
            ]
            for index in range(processes)
        ]  # fmt: skip
        result = self._time_runs(commands, {} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        shutil.rmtree(directory, ignore_errors=True)
        if "error" in result:
            return result
        return {**result, "runs": SWEEP_RUNS, "pairs_per_second": SWEEP_RUNS * pairs / result["seconds"]}

    def _time_runs(self, commands: list[list[str]], env: dict[str, str]) -> dict[str, Any]:
        """Run ``python -m afqmc.run`` concurrently with each list of arguments; return the seconds until all end."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        begin = time.monotonic()
        started = [
            start_process([sys.executable, "-m", "afqmc.run", *arguments], directory, self._env() | env)
            for arguments in commands
        ]
        error = wait_for_all(started)
        seconds = time.monotonic() - begin
        shutil.rmtree(directory, ignore_errors=True)
        return {"error": error} if error else {"seconds": seconds}

    def _env(self) -> dict[str, str]:
        """Return the environment of a child: no network, and the cache of this benchmark."""
        return {
            **os.environ, "HF_HUB_OFFLINE": "1", "AFQMC_CACHE": str(self.cache), "HF_DATASETS_CACHE": str(self.scratch),
            "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1",
        }  # fmt: skip


def start_process(command: list[str], directory: Path, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a process in ``directory``; return it and the file with its output."""
    log = Path(tempfile.mkstemp(dir=directory, suffix=".log")[1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=directory, env=env, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    return process, log


def wait_for_all(started: list[tuple[subprocess.Popen[bytes], Path]]) -> str | None:
    """Wait for all processes. Return the last lines of the first one that failed, or None."""

    def kill() -> None:
        for process, _ in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    # wait(timeout=...) polls every 50 ms, too coarse for --help, which takes a few hundred
    watchdog = threading.Timer(TIME_LIMIT, kill)
    watchdog.start()
    try:
        for process, log in started:
            if process.wait() == -signal.SIGKILL:
                return f"killed after {TIME_LIMIT:g} s, or for lack of memory"
            if process.returncode:
                output = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                return "\n".join(output[-8:]) or f"exit code {process.returncode}"
    finally:
        watchdog.cancel()
        kill()
    return None
