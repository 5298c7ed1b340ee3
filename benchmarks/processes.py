"""Starts the processes that measure, one at a time, and brings their figures back."""

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
TIME_LIMIT = 900.0  # seconds; what takes longer has failed
_WAYS = {  # of a sweep: (processes at once, threads each; None leaves the default)
    "one process": (1, None),
    "two, 1 thread each": (2, 1),
    "two, all threads each": (2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
}


class Bench:
    """The data, the weights of each model, and a directory that is thrown away."""

    def __init__(self, data: Path, model_dir: Path, scratch: Path) -> None:
        self.data, self.model_dir, self.scratch = data.absolute(), model_dir.absolute(), scratch
        self.cache = scratch / "cache"

    def measure(self, measurement: Measurement) -> dict[str, Any]:
        """The figures of a measurement, or ``error``."""
        if measurement.kind == "command":
            return self._together([COMMANDS[measurement.contestant]], {})
        if measurement.kind == "sweep":
            return self._sweep(measurement)
        if measurement.fresh:
            shutil.rmtree(self.cache, ignore_errors=True)
        return self._worker(measurement.kind, measurement.model, measurement.contestant, measurement.sizes)

    def weights(self, model: str) -> Path:
        """Random weights of a model, made when first wanted."""
        target = self.scratch / f"weights-{model}"
        if not target.exists():
            made = self._worker("checkpoint", model, "", {})
            if "error" in made:
                raise RuntimeError(made["error"])
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
            error = finished([start([sys.executable, "-m", "benchmarks.worker", str(file)], directory, self._env())])
            return {"error": error} if error else json.loads((directory / "job.result.json").read_text())
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _sweep(self, measurement: Measurement) -> dict[str, Any]:
        """Short runs that differ in their seed, shared out over so many processes at once."""
        weights, (processes, threads) = self.weights(measurement.model), _WAYS[measurement.contestant]
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        pairs, each = measurement.sizes["pairs"], SWEEP_RUNS // processes
        commands = [
            [
                "-m", f"seed={','.join(str(number * each + seed) for seed in range(each))}",
                f"dataset.path={self.data}", f"dataset.max_train_samples={pairs}", "dataset.max_dev_samples=64",
                "dataset.max_test_samples=64", f"model.name_or_path={weights}", "epochs=1", "tracker=none",
                f"batch_size={measurement.sizes['batch_size']}", f"hydra.sweep.dir={directory / str(number)}",
            ]
            for number in range(processes)
        ]  # fmt: skip
        found = self._together(commands, {} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        shutil.rmtree(directory, ignore_errors=True)
        if "error" in found:
            return found
        return {**found, "runs": SWEEP_RUNS, "pairs_per_second": SWEEP_RUNS * pairs / found["seconds"]}

    def _together(self, commands: list[list[str]], env: dict[str, str]) -> dict[str, Any]:
        """``python -m afqmc.run`` with each of these at once: the seconds until the last has ended."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        since = time.monotonic()
        error = finished([
            start([sys.executable, "-m", "afqmc.run", *command], directory, self._env() | env) for command in commands
        ])  # fmt: skip
        seconds = time.monotonic() - since
        shutil.rmtree(directory, ignore_errors=True)
        return {"error": error} if error else {"seconds": seconds}

    def _env(self) -> dict[str, str]:
        """No network, no cache but ours."""
        return {
            **os.environ, "HF_HUB_OFFLINE": "1", "AFQMC_CACHE": str(self.cache), "HF_DATASETS_CACHE": str(self.scratch),
            "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1",
        }  # fmt: skip


def start(command: list[str], directory: Path, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
    """A process in a directory of its own, what it says in a file there."""
    log = Path(tempfile.mkstemp(dir=directory, suffix=".log")[1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=directory, env=env, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    return process, log


def finished(started: list[tuple[subprocess.Popen[bytes], Path]]) -> str | None:
    """Wait for all of them; the end of what the first failed one said, None when all is well."""

    def kill() -> None:
        for process, _ in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    # not wait(timeout=...): that looks only every 50 ms, and --help takes a few hundred
    watchdog = threading.Timer(TIME_LIMIT, kill)
    watchdog.start()
    try:
        for process, log in started:
            if process.wait() == -signal.SIGKILL:
                return f"killed: after {TIME_LIMIT:g} s, or for want of memory"
            if process.returncode:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                return "\n".join(said[-8:]) or f"exit code {process.returncode}"
    finally:
        watchdog.cancel()
        kill()
    return None
