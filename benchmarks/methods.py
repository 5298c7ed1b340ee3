"""Cost of the training methods: time per pair and peak memory, relative to plain training, measured in turns.

    python -m benchmarks.methods [--methods ema,fgm] [--rounds 3] [--steps 40] [key=value ...]

The methods are the variants of ``conf/sweep/methods.yaml``. Each training is a separate command on the embedded pairs,
with the model of ``experiment=quickstart`` and dropout, unless ``key=value`` names others.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from omegaconf import OmegaConf

from benchmarks.processes import ROOT
from benchmarks.scaling import run_training

BASELINE = "plain"
COMMON = ["experiment=quickstart", "tracker=none", "epochs=1"]
MODEL = [f"model.config_overrides.{name}=0.1" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")]


def variants() -> dict[str, list[str]]:
    """Return the overrides of each method in ``conf/sweep/methods.yaml``."""
    loaded = OmegaConf.load(ROOT / "conf" / "sweep" / "methods.yaml")
    return {str(name): [*map(str, overrides)] for name, overrides in loaded.hydra.sweeper.variants.items()}


def ratios(rates: dict[str, list[float]], memory: dict[str, list[float]]) -> list[tuple[str, str, str]]:
    """Return the name, relative time per pair (median, lowest and highest round) and relative memory of each method."""
    rows = []
    for name, measured in rates.items():
        times = [plain / rate for plain, rate in zip(rates[BASELINE], measured, strict=True)]
        share = statistics.median(memory[name]) / statistics.median(memory[BASELINE])
        rows.append((name, f"{statistics.median(times):.2f} ({min(times):.2f} .. {max(times):.2f})", f"{share:.2f}"))
    return rows


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", help="names, separated by commas; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    chosen = variants()
    if options.methods:
        chosen = {name: chosen[name] for name in (BASELINE, *options.methods.split(",")) if name in chosen}
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    memory: dict[str, list[float]] = {name: [] for name in chosen}
    common = [*COMMON, f"trainer.max_steps={options.steps}", f"trainer.eval_steps={max(options.steps // 2, 1)}"]
    with tempfile.TemporaryDirectory(prefix="afqmc-methods-") as directory:
        for index in range(options.rounds):
            for name, overrides in chosen.items():
                run_dir = Path(directory) / f"{index}-{name}"
                summary = run_training(1, [*common, *(options.overrides or MODEL), *overrides], run_dir)
                rates[name].append(summary["train_pairs_per_second"])
                memory[name].append(summary["peak_memory_gib"])
    print("| method | time per pair | peak memory |\n|---|---:|---:|")
    for row in ratios(rates, memory):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
