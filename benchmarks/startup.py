"""Time until something happens: ``--help``, ``--cfg job``, the first step of the small model, and each job of a sweep.

    python -m benchmarks.startup [--rounds 5] [--jobs 16] [--steps 20]

Each round starts the commands in new processes with an empty cache of afqmc. Python's cache of compiled modules and the
disk cache are warm after a warm-up round, which is not counted. CPU seconds are those of user and system, child
processes included, until the command ends. They depend less on other work on the machine than the time does.

The sweep trains ``--jobs`` seeds one after another. Its overhead per job is its time without the time of training and
evaluation during training, divided by the number of jobs. The start of the sweep and the evaluation at the end of each
run are part of it. The CPU seconds per job are those of the whole sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import ROOT, start_process, wait_for_all

SMALL = ["experiment=quickstart", "tracker=none", "dataset.max_dev_samples=64", "dataset.max_test_samples=64"]


def main() -> None:
    """Measure in turns, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=16, help="of the sweep, which runs in the last round only; 0: none")
    parser.add_argument("--steps", type=int, default=20, help="per job")
    options = parser.parse_args()
    measurements: dict[str, Callable[[Path], tuple[float, float]]] = {
        "--help": lambda directory: run(["--help"], directory)[:2],
        "--cfg job": lambda directory: run(["--cfg", "job"], directory)[:2],
        "first step": first_step,
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in measurements}
    with tempfile.TemporaryDirectory(prefix="afqmc-startup-") as scratch:
        for index in range(options.rounds + 1):
            for name, measure in measurements.items():
                directory = Path(scratch) / f"{index}-{name.strip('-').replace(' ', '-')}"
                directory.mkdir()
                measured = measure(directory)
                if index:  # round 0 is a warm-up
                    rows[name].append(measured)
        if options.jobs:
            directory = Path(scratch) / "sweep"
            directory.mkdir()
            rows[f"per job of {options.jobs}"] = [job_overhead(directory, options.jobs, options.steps)]
    print("| | seconds | spread | CPU seconds, least |\n|---|---:|---:|---:|")
    for name, measured_rows in rows.items():
        seconds, cpu = zip(*measured_rows, strict=True)
        print(
            f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} .. {max(seconds):.2f} | {min(cpu):.2f} |"
        )


def run(arguments: list[str], directory: Path) -> tuple[float, float, float]:
    """Run ``python -m afqmc.run`` in ``directory``.

    Returns:
        Seconds, CPU seconds, and the time of the start in seconds since the epoch.

    Raises:
        RuntimeError: with the last lines of the output if it fails.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "AFQMC_CACHE": str(directory / "cache")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # without compiled modules, each start would compile them again
    started, before, begin = time.time(), cpu_seconds(), time.monotonic()
    if error := wait_for_all([start_process([sys.executable, "-m", "afqmc.run", *arguments], directory, env)]):
        raise RuntimeError(error)
    return time.monotonic() - begin, cpu_seconds() - before, started


def first_step(directory: Path) -> tuple[float, float]:
    """Return the seconds from the command to the row of the first step, and the CPU seconds of the whole run."""
    arguments = [*SMALL, "trainer.max_steps=1", "trainer.logging_steps=1", f"hydra.run.dir={directory / 'run'}"]
    _, cpu, started = run(arguments, directory)
    with (directory / "run/metrics.jsonl").open(encoding="utf-8") as rows:
        return json.loads(next(rows))["time"] - started, cpu


def job_overhead(directory: Path, jobs: int, steps: int) -> tuple[float, float]:
    """Return the seconds and CPU seconds per job of a sweep, the seconds without those of training."""
    sweep = directory / "jobs"
    arguments = [*SMALL, f"trainer.max_steps={steps}", f"seed={','.join(map(str, range(jobs)))}"]
    seconds, cpu, _ = run(["-m", *arguments, f"hydra.sweep.dir={sweep}"], directory)
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in sweep.glob("*/summary.json")]
    assert len(summaries) == jobs, f"{len(summaries)} of {jobs} runs are complete"
    return (seconds - sum(summary["train_seconds"] for summary in summaries)) / jobs, cpu / jobs


def cpu_seconds() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
