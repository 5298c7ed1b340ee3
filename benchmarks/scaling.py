"""Speed of the same training with one process on all cores and with several that share the cores, in turns.

    python -m benchmarks.scaling [--model base|mini] [--processes 2] [--steps 20] [--rounds 3] [--batch-size 32]

Each training is a separate command with the same batches; ``torchrun`` starts several processes. The rate is pairs per
second of the training steps, without checkpoints and evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, start_process, wait_for_all


def build_command(processes: int, overrides: list[str]) -> list[str]:
    """Return the command ``python -m afqmc.run``, under ``torchrun`` for several processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "afqmc.run", *overrides]


def run_training(processes: int, overrides: list[str], directory: Path, checkout: Path = ROOT) -> dict[str, Any]:
    """Run a training in a new directory with the code of a checkout, and return its summary.

    Raises:
        RuntimeError: with the last lines of its output if it fails.
    """
    directory.mkdir()
    run_dir = directory / "run"
    command = build_command(processes, [*overrides, "trainer.device=cpu", f"hydra.run.dir={run_dir}"])
    env = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUTF8": "1"}
    if error := wait_for_all([start_process(command, directory, env)]):
        raise RuntimeError(error)
    return dict(json.loads((run_dir / "summary.json").read_text(encoding="utf-8")))


def main() -> None:
    """Measure and print a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=["base", "mini"], default="mini")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    from benchmarks.saving import build_overrides  # imports torch

    overrides = build_overrides(options.model, options.steps, options.batch_size, options.steps)
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory(prefix="afqmc-scaling-") as name:
        for index in range(options.rounds):
            for processes, measured in rates.items():
                summary = run_training(processes, overrides, Path(name) / f"{index}-{processes}")
                measured.append(summary["train_pairs_per_second"])
    single, several = rates.values()
    ratios = [b / a for a, b in zip(single, several, strict=True)]
    print(
        f"{options.model}, batch {options.batch_size}: 1 process {statistics.median(single):.4g} pairs/s, "
        f"{options.processes} processes {statistics.median(several):.4g}: {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} .. {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
