"""Time that resume checkpoints cost: the same training with several checkpoints and with one, in turns.

    python -m benchmarks.saving [--model base|mini] [--steps 20] [--saves 2] [--rounds 3] [--batch-size 32]

A training is timed from before its first step until its last checkpoint is on the disk: once with ``--saves``
checkpoints, and once with a single one at its end. The difference, divided by the number of additional checkpoints, is
the cost of a checkpoint. The printed share is that of one checkpoint per 100 steps (``checkpoint.save_steps=100``).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from afqmc.config import compose
from afqmc.config.schema import Config
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.utils.process import configure_threads

ARCHITECTURES = {"base": (768, 12, 12, 3072, 21128), "mini": (312, 4, 12, 1248, 8000)}


def build_overrides(model: str, steps: int, batch_size: int, save_steps: int) -> list[str]:
    """Return the overrides of a run with the embedded pairs and a model from scratch."""
    hidden, layers, heads, intermediate, vocabulary = ARCHITECTURES[model]
    return [
        "dataset=sample", "model=mini", "tracker=none", f"batch_size={batch_size}",
        "dataset.max_dev_samples=64", "dataset.max_test_samples=64",
        f"model.vocab_size={vocabulary}", f"+model.config_overrides.vocab_size={vocabulary}",
        f"model.config_overrides.hidden_size={hidden}", f"model.config_overrides.num_hidden_layers={layers}",
        f"model.config_overrides.num_attention_heads={heads}",
        f"model.config_overrides.intermediate_size={intermediate}",
        f"trainer.max_steps={steps}", f"trainer.eval_steps={steps}", f"checkpoint.save_steps={save_steps}",
        "checkpoint.save_interval_minutes=null", f"trainer.logging_steps={steps}",
    ]  # fmt: skip


class FitTimer(Callback):
    """Measures the time of the training, in ``seconds``."""

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Start the clock."""
        self.seconds = -time.perf_counter()

    def on_fit_end(self, trainer: TrainerView) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter()


def time_training(config: Config, directory: Path) -> tuple[float, int]:
    """Return the seconds of a training and the bytes of its checkpoint."""
    timer = FitTimer()
    run_experiment(config, RunDir(directory), callbacks=[timer])
    return timer.seconds, sum(path.stat().st_size for path in (directory / "checkpoints/last").glob("state.*"))


def main() -> None:
    """Measure and print a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=list(ARCHITECTURES), default="mini")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--saves", type=int, default=2, help="checkpoints per training, including the last one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    configure_threads()
    additional, rows, size = options.saves - 1, [], 0
    with tempfile.TemporaryDirectory(prefix="afqmc-saving-") as name:
        for index in range(options.rounds + 1):  # round 0 is a warm-up
            times = []
            for save_steps in (options.steps // options.saves, options.steps):
                config = compose(build_overrides(options.model, options.steps, options.batch_size, save_steps))
                seconds, size = time_training(config, Path(name) / f"{index}-{save_steps}")
                times.append(seconds)
            if index > 0:
                rows.append(((times[0] - times[1]) / additional, times[1] / options.steps))
    costs, step = [cost for cost, _ in rows], statistics.median(step for _, step in rows)
    cost = statistics.median(costs)
    print(
        f"{options.model}: a checkpoint of {size / 2**20:.0f} MiB costs {cost:.3f} s ({min(costs):.3f} .. "
        f"{max(costs):.3f}), a step takes {step:.3f} s: {100 * cost / (100 * step + cost):.2f}% at save_steps=100"
    )


if __name__ == "__main__":
    main()
