"""How much two run directories differ that should hold the same run but for the order of floating-point sums."""

import json

import numpy as np
from safetensors.torch import load_file

from afqmc.checkpoint.serialization import read_state

_NOISE = "key.bias"  # its gradient is zero but for rounding, which Adam makes as large as any other


def unlikeness(one, other):
    """The largest differences of the steps' losses, the dev metrics and the final weights, and of the dev logits
    before the first step."""
    first, second = (read_state(run.path / "checkpoints/last")["training"]["model"] for run in (one, other))
    best = [load_file(run.path / "checkpoints/best/model.safetensors") for run in (one, other)]
    assert [list(found) for found in best] == [list(best[0])] * 2
    return {
        "loss": _largest(values(one, "train/loss"), values(other, "train/loss")),
        "metrics": max(_largest(values(one, name), values(other, name)) for name in _METRICS),
        "weights": max(_largest(first[name], second[name]) for name in first if not name.endswith(_NOISE)),
        "logits": _largest(*(np.load(run.path / "logits.npy") for run in (one, other))),
    }


_METRICS = ("dev/loss", "dev/accuracy", "dev/f1", "dev/auc", "dev/mcc", "dev/average_precision")


def _largest(one, other):
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert one.shape == other.shape
    assert one.size
    return float(np.abs(one - other).max())


def values(run, key):
    """Of a metric in metrics.jsonl, in order."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[key] for row in map(json.loads, lines) if key in row]
