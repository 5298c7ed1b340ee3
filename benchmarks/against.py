"""Speed of a training step of this checkout and of another commit, in turns.

    python -m benchmarks.speed --against COMMIT [--model base|mini] [--steps 60] [--rounds 5] [--batch-size 32]

Both train the same model from scratch on the embedded pairs. The other commit is checked out into a temporary
directory, which is removed afterwards. Each training is a process of its own, and the commits alternate in who is
first. Uncommitted changes count as part of this checkout. On GitHub, a slower step also gives a warning.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afqmc.utils.signals import handle_termination
from benchmarks.processes import ROOT
from benchmarks.scaling import run_training

LEVEL = 0.95  # of the interval


def main() -> int:
    """Measure and print a line per round and a sentence; return the exit code 0, also if this checkout is slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="COMMIT", help="a commit, branch or tag of this repository")
    parser.add_argument("--model", choices=["base", "mini"], default="mini")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: must be >= 2, since an interval needs several rounds")
    from benchmarks.saving import build_overrides

    overrides = build_overrides(options.model, options.steps, options.batch_size, options.steps)
    with handle_termination():  # so that SIGTERM, too, removes the worktree
        ratios = compare(ROOT, options.against, overrides, options.rounds)
    low, ratio, high = interval(ratios)
    sentence = describe(options.against, low, ratio, high)
    print(sentence)
    if high < 1 and os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::warning::{sentence}")
    return 0


def compare(repository: Path, commit: str, overrides: Sequence[str], rounds: int) -> list[float]:
    """Return, per round, the pairs per second of ``repository`` divided by those of its ``commit``.

    Raises:
        RuntimeError: with the last lines of the output if a training fails.
    """
    ratios = []
    with tempfile.TemporaryDirectory(prefix="afqmc-against-") as name, worktree(repository, commit, name) as other:
        for index in range(rounds):
            rates = {}
            for checkout in (repository, other) if index % 2 else (other, repository):
                directory = Path(name) / f"{index}-{'this' if checkout == repository else 'other'}"
                rates[checkout] = run_training(1, [*overrides], directory, checkout)["train_pairs_per_second"]
            ratios.append(rates[repository] / rates[other])
            print(
                f"round {index + 1}: {rates[repository]:.4g} pairs/s, {commit} {rates[other]:.4g}: {ratios[-1]:.3f}",
                flush=True,
            )
    return ratios


@contextmanager
def worktree(repository: Path, commit: str, directory: str) -> Iterator[Path]:
    """Check out a commit into ``directory`` as a worktree of the repository, and remove it afterwards."""
    path, git = Path(directory) / "checkout", ["git", "-C", str(repository), "worktree"]
    added = subprocess.run([*git, "add", "--detach", str(path), commit], capture_output=True, text=True)
    if added.returncode:
        sys.exit(f"--against {commit}: {added.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of the ratios between the ends of its interval: Student's t of the log ratios.

    Returns:
        Low, mean, high.
    """
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = float(t.ppf((1 + LEVEL) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean - half), math.exp(mean), math.exp(mean + half)


def describe(commit: str, low: float, ratio: float, high: float) -> str:
    """Say in a sentence whether a step of this checkout is faster or slower than one of the commit."""
    measured = f"{ratio:.3f} times its pairs per second, {LEVEL:.0%} interval {low:.3f} .. {high:.3f}"
    if low > 1:
        return f"A training step is faster than at {commit}: {measured}."
    if high < 1:
        return f"A training step is slower than at {commit}: {measured}."
    return f"No difference from {commit} beyond noise: {measured}."


if __name__ == "__main__":
    sys.exit(main())
