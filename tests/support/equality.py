"""Compare two run directories that must be the same bit for bit: weights, training state, metrics and predictions."""

import hashlib
import json

from afqmc.checkpoint.serialization import read_state

TIMES = (
    "time",
    "train/pairs_per_second",
    "train_pairs_per_second",
    "train_seconds",
    "total_seconds",
    "peak_memory_gib",
)


def differences(run_a, run_b):
    """Return what differs between two complete runs, apart from times and memory; empty if nothing does."""
    different = []
    for name in ("checkpoints/best/model.safetensors", "predictions/dev.jsonl", "predictions/test.jsonl"):
        if _sha256(run_a.path / name) != _sha256(run_b.path / name):
            different.append(name)
    if metrics(run_a) != metrics(run_b):
        different.append("metrics.jsonl")
    if _without_times(json.loads(run_a.summary.read_text())) != _without_times(json.loads(run_b.summary.read_text())):
        different.append("summary.json")
    different += list(_different_paths(_training_state(run_a), _training_state(run_b), "last"))
    return different


def metrics(run):
    """Return all rows of metrics.jsonl, without times."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [_without_times(json.loads(line)) for line in lines]


def _training_state(run):
    return read_state(run.path / "checkpoints" / "last")["training"]


def _different_paths(a, b, path):
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key != "seconds":
                yield from _different_paths(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, items in enumerate(zip(a, b, strict=True)):
            yield from _different_paths(*items, f"{path}/{index}")
    elif hasattr(a, "numpy"):
        if a.numpy().tobytes() != b.numpy().tobytes():
            yield path
    elif repr(a) != repr(b):  # NaN equals itself here
        yield path


def _without_times(row):
    return {key: value for key, value in row.items() if key not in TIMES}


def _sha256(path):
    """Return the sha256 of a file; None if there is none, as of the predictions of a pretraining."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
