"""The same training by one process with all cores, and by several that share them, taking turns.

    python -m benchmarks.scaling [--model base|mini] [--processes 2] [--steps 20] [--rounds 3] [--batch-size 32]

Each is a command of its own (``torchrun`` starts several), with the same batches. The rate is the training's own: pairs
by the time that its steps took, checkpoints and evaluation left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.processes import ROOT, finished, start
from benchmarks.saving import overrides_of


def command_of(processes: int, overrides: list[str]) -> list[str]:
    """``python -m afqmc.run``, or the same under ``torchrun``."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "afqmc.run", *overrides]


def rate(processes: int, overrides: list[str], place: Path) -> float:
    """Pairs a second of a run in the directory ``place``; RuntimeError with the end of its output when it fails."""
    place.mkdir()
    directory = place / "run"
    command = command_of(processes, [*overrides, "trainer.device=cpu", f"hydra.run.dir={directory}"])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    if error := finished([start(command, place, env)]):
        raise RuntimeError(error)
    return float(json.loads((directory / "summary.json").read_text(encoding="utf-8"))["train_pairs_per_second"])


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=["base", "mini"], default="mini")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    overrides = overrides_of(options.model, options.steps, options.batch_size, options.steps)
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory(prefix="afqmc-scaling-") as name:
        for number in range(options.rounds):
            for processes, seen in rates.items():
                seen.append(rate(processes, overrides, Path(name) / f"{number}-{processes}"))
    one, several = rates.values()
    ratios = [b / a for a, b in zip(one, several, strict=True)]
    print(
        f"{options.model}, batch {options.batch_size}: 1 process {statistics.median(one):.4g} pairs/s, "
        f"{options.processes} processes {statistics.median(several):.4g}: {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} .. {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
