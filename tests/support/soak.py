"""Kill runs at random moments, resume them, and compare the results with uninterrupted runs.

    python tests/support/soak.py [--kills 100] [--seed S] [--minutes M] [--at-once 2]

Each run is started with ``resume=auto`` and killed several times: with SIGTERM for a quarter of the kills, otherwise
with SIGKILL. The moments are of several kinds: any time, the first seconds, during a save, an evaluation, or the final
writes. Then the run is completed. Runs alternate between several training configurations, all with dropout. The result
must equal, bit for bit, that of an uninterrupted run of its configuration; until then there must be no summary.json.
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
VARIANTS = (
    ("trainer.gradient_accumulation_steps=2",),
    ("dataset.streaming=true", "dataset.shuffle_buffer_size=20", "trainer.max_grad_norm=0.5"),
    ("dataset.batching=random", "trainer.patience=6", "checkpoint.keep_weights=2", "trainer.monitor=dev/loss"),
    ("performance.fast_cpu_dropout=false", "performance.padding_free=true", "optimizer=adafactor"),
)
SIGTERM_SHARE = 0.25  # share of the kills; after a SIGTERM the run saves a checkpoint
MOMENTS = {
    "start": lambda run, rng: _after(rng.uniform(0.2, 4)),
    "any": lambda run, rng: _once(run.metrics.exists, rng.uniform(0, 4)),
    "save": lambda run, rng: _once(lambda: _exists(run, ".last.new"), rng.uniform(0, 0.03), rng.randint(1, 12)),
    "best": lambda run, rng: _once(lambda: _exists(run, ".best.new"), rng.uniform(0, 0.01)),
    "evaluation": lambda run, rng: _once(lambda: _rows(run) % 10 == 0 < _rows(run), rng.uniform(0, 0.02)),
    "final": lambda run, rng: _once(lambda: (run.path / "predictions").exists(), rng.uniform(0, 0.05)),
}


def _exists(run, name):
    return (run.checkpoints / name).exists()


def _rows(run):
    return run.metrics.read_bytes().count(b'"train/loss"') if run.metrics.exists() else 0


def _after(seconds):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _once(happens, delay_s, times=1):
    """Return a function that is true some seconds after an event has happened for the n-th time."""
    state = {"left": times, "due": None, "before": False}

    def check():
        if state["due"] is not None:
            return time.monotonic() >= state["due"]
        now = happens()
        if now and not state["before"]:
            state["left"] -= 1
        state["before"] = now
        if state["left"] <= 0:
            state["due"] = time.monotonic() + delay_s
        return False

    return check


def start(run, cache, variant):
    environment = {**os.environ, "AFQMC_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), environment.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *RUN, *variant, f"hydra.run.dir={run.path}"],
        env=environment,
        cwd=run.path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_once(run, cache, variant, moment, rng):
    """Start or resume the run and kill it at the chosen moment; return whether it was still running then."""
    due, process = MOMENTS[moment](run, rng), start(run, cache, variant)
    number = signal.SIGTERM if rng.random() < SIGTERM_SHARE else signal.SIGKILL
    while process.poll() is None and not due():
        time.sleep(0.001)
    if process.poll() is None:
        process.send_signal(number)
    out, _ = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise AssertionError(f"ended with {process.returncode}:\n{out}")
    killed = process.returncode != 0
    if killed and run.summary.exists() and run.read_status().get("status") != "completed":
        raise AssertionError("summary.json exists, but the run is not complete")
    return killed


def one_run(directory, number, seed, kills, references, cache):
    """Complete a run that is killed several times; return the moments of the kills, and the differences."""
    rng, run, moments = random.Random(f"{seed}-{number}"), RunDir(directory / f"run-{number}"), []
    variant = VARIANTS[number % len(VARIANTS)]
    while len(moments) < kills and not run.summary.exists():
        moment = rng.choice(list(MOMENTS))
        if kill_once(run, cache, variant, moment, rng):
            moments.append(moment)
    process = start(run, cache, variant)
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        return moments, [f"ended with {process.returncode}: {out}"]
    return moments, differences(references[variant], run)


def soak(kills, seed, minutes, at_once):
    """Run until the number of kills or minutes is reached; return the number of runs, the kills and the differences."""
    with tempfile.TemporaryDirectory(prefix="afqmc-soak-") as name:
        directory = Path(name)
        cache, deadline = directory / "cache", time.monotonic() + 60 * minutes
        references = {variant: RunDir(directory / f"reference-{number}") for number, variant in enumerate(VARIANTS)}
        for variant, reference in references.items():
            out, _ = start(reference, cache, variant).communicate()
            assert reference.summary.exists(), f"an uninterrupted run failed: {out}"
        counts, runs, wrong, number = Counter(), 0, [], 0
        with ThreadPoolExecutor(at_once) as pool:
            while counts.total() < kills and time.monotonic() < deadline:
                each = min(4, -(-(kills - counts.total()) // at_once))
                numbers = range(number, number + at_once)
                number += at_once
                started = [pool.submit(one_run, directory, n, seed, each, references, cache) for n in numbers]
                for moments, different in (run.result() for run in started):
                    counts.update(moments)
                    runs += 1
                    wrong += different
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
