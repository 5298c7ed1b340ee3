"""Measure how much two runs differ whose floating-point sums are in different orders."""

import json

import numpy as np
from safetensors.torch import load_file

from afqmc.checkpoint.serialization import read_state

NOISE = "key.bias"  # its gradient is zero up to rounding, and Adam scales that up to the size of any other gradient
_METRICS = (
    "dev/loss",
    "dev/accuracy",
    "dev/f1",
    "dev/roc_auc",
    "dev/mcc",
    "dev/average_precision",
    "dev/masked_accuracy",
)


def largest_differences(run_a, run_b):
    """Return the largest absolute differences: losses of the steps, dev metrics, final weights, initial dev logits."""
    weights_a, weights_b = (read_state(run.path / "checkpoints/last")["training"]["model"] for run in (run_a, run_b))
    best_a, best_b = (load_file(run.path / "checkpoints/best/model.safetensors") for run in (run_a, run_b))
    assert list(best_a) == list(best_b)
    return {
        "loss": _largest(values(run_a, "train/loss"), values(run_b, "train/loss")),
        "metrics": max(_largest(values(run_a, name), values(run_b, name)) for name in _METRICS if values(run_a, name)),
        "weights": max(_largest(weights_a[name], weights_b[name]) for name in weights_a if not name.endswith(NOISE)),
        "logits": _largest(*(np.load(run.path / "logits.npy") for run in (run_a, run_b))),
    }


def _largest(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    assert a.size
    return float(np.abs(a - b).max())


def values(run, key):
    """Return the values of a metric in metrics.jsonl, in order."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[key] for row in map(json.loads, lines) if key in row]
