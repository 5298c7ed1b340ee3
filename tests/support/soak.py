"""Kill runs at random moments and hold what they become to a run that was never killed.

    python tests/support/soak.py [--kills 100] [--seed S] [--minutes M] [--at-once 2]

Each run is started with ``resume=auto``, killed some times (SIGKILL, or SIGTERM for a quarter of them) at moments of
several kinds - any moment, its first seconds, inside a save, an evaluation, the final write - and then left to its end.
The runs take turns in several ways of training, all with dropout. What one leaves must be equal, bit for bit, to an
uninterrupted run of its way; until then there must be no summary.json.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from equality import differences
from helpers import SMALL

from afqmc.run_dir import RunDir

ROOT = Path(__file__).parents[2]
RUN = (
    *SMALL,
    "resume=auto",
    "epochs=8",
    "model.config_overrides.hidden_dropout_prob=0.1",
    "model.config_overrides.attention_probs_dropout_prob=0.1",
    "trainer.mixed_precision=bf16",
    "trainer.eval_steps=10",
    "checkpoint.save_steps=3",
    "trainer.logging_steps=1",
)
WAYS = (
    ("trainer.gradient_accumulation_steps=2",),
    ("dataset.streaming=true", "dataset.shuffle_buffer_size=20", "trainer.max_grad_norm=0.5"),
    ("dataset.batching=random", "trainer.patience=6", "checkpoint.keep_weights=2", "trainer.monitor=dev/loss"),
    ("performance.fast_cpu_dropout=false", "performance.padding_free=true", "optimizer=adafactor"),
)
TERMINATED = 0.25  # of the kills are SIGTERM, after which the run saves itself
MOMENTS = {
    "start": lambda run, rng: _after(rng.uniform(0.2, 4)),
    "any": lambda run, rng: _once(run.metrics.exists, rng.uniform(0, 4)),
    "save": lambda run, rng: _once(lambda: _is_there(run, ".last.new"), rng.uniform(0, 0.03), rng.randint(1, 12)),
    "best": lambda run, rng: _once(lambda: _is_there(run, ".best.new"), rng.uniform(0, 0.01)),
    "evaluation": lambda run, rng: _once(lambda: _rows(run) % 10 == 0 < _rows(run), rng.uniform(0, 0.02)),
    "final": lambda run, rng: _once(lambda: (run.path / "predictions").exists(), rng.uniform(0, 0.05)),
}


def _is_there(run, name):
    return (run.checkpoints / name).exists()


def _rows(run):
    return run.metrics.read_bytes().count(b'"train/loss"') if run.metrics.exists() else 0


def _after(seconds):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _once(happens, later, times=1):
    """So many seconds after something has happened, for the n-th time."""
    state = {"left": times, "due": None, "before": False}

    def check():
        if state["due"] is not None:
            return time.monotonic() >= state["due"]
        now = happens()
        if now and not state["before"]:
            state["left"] -= 1
        state["before"] = now
        if state["left"] <= 0:
            state["due"] = time.monotonic() + later
        return False

    return check


def start(run, cache, way):
    environment = {**os.environ, "AFQMC_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), environment.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *RUN, *way, f"hydra.run.dir={run.path}"],
        env=environment,
        cwd=run.path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_once(run, cache, way, moment, rng):
    """Start or go on, kill in such a moment; whether it was still there to be killed."""
    due, process = MOMENTS[moment](run, rng), start(run, cache, way)
    number = signal.SIGTERM if rng.random() < TERMINATED else signal.SIGKILL
    while process.poll() is None and not due():
        time.sleep(0.001)
    if process.poll() is None:
        process.send_signal(number)
    out, _ = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise AssertionError(f"ended with {process.returncode}:\n{out}")
    killed = process.returncode != 0
    if killed and run.summary.exists() and run.read_status().get("status") != "completed":
        raise AssertionError("a summary of a run that is not complete")
    return killed


def one_run(place, number, seed, kills, wholes, cache):
    """One run killed so often, to its end; the moments of its kills, and what differs."""
    rng, run, moments = random.Random(f"{seed}-{number}"), RunDir(place / f"run-{number}"), []
    way = WAYS[number % len(WAYS)]
    while len(moments) < kills and not run.summary.exists():
        moment = rng.choice(list(MOMENTS))
        if kill_once(run, cache, way, moment, rng):
            moments.append(moment)
    process = start(run, cache, way)
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        return moments, [f"ended with {process.returncode}: {out}"]
    return moments, differences(wholes[way], run)


def soak(kills, seed, minutes, at_once):
    """Until so many kills or minutes; returns the counts."""
    with tempfile.TemporaryDirectory(prefix="afqmc-soak-") as name:
        place = Path(name)
        cache, deadline = place / "cache", time.monotonic() + 60 * minutes
        wholes = {way: RunDir(place / f"whole-{number}") for number, way in enumerate(WAYS)}
        for way, whole in wholes.items():
            out, _ = start(whole, cache, way).communicate()
            assert whole.summary.exists(), f"an uninterrupted run did not end well: {out}"
        counts, runs, wrong, number = Counter(), 0, [], 0
        with ThreadPoolExecutor(at_once) as pool:
            while counts.total() < kills and time.monotonic() < deadline:
                each = min(4, -(-(kills - counts.total()) // at_once))
                these = range(number, number + at_once)
                number += at_once
                started = [pool.submit(one_run, place, n, seed, each, wholes, cache) for n in these]
                for moments, found in (run.result() for run in started):
                    counts.update(moments)
                    runs += 1
                    wrong += found
                print(f"{runs} runs, {counts.total()} kills {dict(counts)}, {len(wrong)} mismatches", flush=True)
    return runs, counts, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    runs, counts, wrong = soak(options.kills, options.seed, options.minutes, options.at_once)
    for line in wrong:
        print(line)
    print(f"{counts.total()} kills in {runs} runs, mismatches: {len(wrong)} (seed {options.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
