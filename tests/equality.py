"""Whether two run directories hold the same run: weights, all training state, figures and predictions, bit for bit."""

import hashlib
import json

from afqmc.checkpoint.serialization import read_state

TIMES = ("time", "train/pairs_per_second", "train_pairs_per_second", "train_seconds", "seconds", "peak_memory_gib")


def differences(one, other):
    """What differs between two complete runs; empty when nothing does. Only what was timed may."""
    found = []
    for name in ("checkpoints/best/model.safetensors", "predictions/dev.jsonl", "predictions/test.jsonl"):
        if _sha256(one.path / name) != _sha256(other.path / name):
            found.append(name)
    if metrics(one) != metrics(other):
        found.append("metrics.jsonl")
    if _timeless(json.loads(one.summary.read_text())) != _timeless(json.loads(other.summary.read_text())):
        found.append("summary.json")
    found += list(_unlike(_training(one), _training(other), "last"))
    return found


def metrics(run):
    """All rows, less what was timed."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [_timeless(json.loads(line)) for line in lines]


def _training(run):
    return read_state(run.path / "checkpoints" / "last")["training"]


def _unlike(one, other, place):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            if key != "seconds":
                yield from _unlike(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _unlike(*pair, f"{place}/{number}")
    elif hasattr(one, "numpy"):
        if one.numpy().tobytes() != other.numpy().tobytes():
            yield place
    elif repr(one) != repr(other):  # NaN is like itself
        yield place


def _timeless(row):
    return {key: value for key, value in row.items() if key not in TIMES}


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
