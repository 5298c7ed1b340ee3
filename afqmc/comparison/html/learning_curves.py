"""Learning curves of all runs, downsampled if there are more points than the page can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from afqmc.comparison.html.json_embedding import base64_array
from afqmc.results.resampled_metrics import Array
from afqmc.results.runs import Run
from afqmc.utils.errors import InputError

MAX_POINTS = 300_000  # of a page; with 1,000 runs it has less than 8 MB, 4.8 of them for the plotting library
_CURVE_LIMITS = (2000, 1000, 500, 300, 200, 150, 100, 70, 50, 40, 30, 25, 20, 15, 10)  # points; the first that fits
_FRACTIONS = (1 << 16) - 1  # of a curve's range, to which its values are rounded
_MAX_METRICS = 40  # a run writes about two dozen
_MAX_EPOCHS, _MAX_VALUE = 1e9, 1e30  # larger numbers are invalid

Curve = tuple[Array, Array]  # steps and values, (N,) each


def curves(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the learning curves for the page.

    Returns:
        A dict with ``names`` of the metrics, most frequent first; ``steps``, the distinct arrays of steps, encoded
        by ``_encode_steps``;
        ``runs``, with ``epochs_per_step`` and ``curves`` by index of the metric, each as the index of its steps and the
        encoded values; ``points``, their number before downsampling; ``max_points`` per curve, or None if no curve
        was downsampled; and ``omitted``, the number of metrics left out.
    """
    runs_curves = [_read_curves(run) for run in runs]
    frequencies = Counter(name for by_metric, _ in runs_curves for name in by_metric)
    names = [name for name, _ in frequencies.most_common(_MAX_METRICS)]
    lengths = [len(by_metric[name][0]) for by_metric, _ in runs_curves for name in names if name in by_metric]
    limit = next(
        (limit for limit in _CURVE_LIMITS if sum(min(length, limit) for length in lengths) <= MAX_POINTS),
        _CURVE_LIMITS[-1],
    )
    step_index: dict[tuple[bool, str], int] = {}  # most runs have the same steps

    def encode(curve: Curve) -> list[Any]:
        steps, values = curve
        rows = downsample(values, limit)
        return [step_index.setdefault(_encode_steps(steps[rows]), len(step_index)), _encode_values(values[rows])]

    encoded = [
        {
            "epochs_per_step": epochs_per_step,
            "curves": {index: encode(by_metric[name]) for index, name in enumerate(names) if name in by_metric},
        }
        for by_metric, epochs_per_step in runs_curves
    ]
    return {
        "names": names,
        "steps": list(step_index),
        "runs": encoded,
        "points": sum(lengths),
        "max_points": limit if any(length > limit for length in lengths) else None,
        "omitted": len(frequencies) - len(names),
    }


def _encode_steps(steps: Array) -> tuple[bool, str]:
    """Return the increases of the steps, from 0 on, as 16-bit numbers if they fit, and whether they need 32 bits."""
    increases = np.diff(steps, prepend=0)
    needs_32_bits = bool((increases < 0).any() or (increases >= 1 << 16).any())
    return needs_32_bits, base64_array(increases, "i4" if needs_32_bits else "u2")


def _encode_values(values: Array) -> str:
    """Return the lowest and the highest value as float32, then each value as a 16-bit fraction of the range."""
    low, high = values.min(), values.max()
    fractions = np.rint((values - low) * (_FRACTIONS / (high - low))) if high > low else np.zeros(len(values))
    return base64_array(np.concatenate([np.array([low, high], dtype="<f4").view("<u2"), fractions]), "u2")


def downsample(values: Array, limit: int) -> Array:
    """Return the indices to keep, at most ``limit``: first, last, and minimum and maximum of equal stretches."""
    if len(values) <= limit:
        return np.arange(len(values))
    inner, stretches = values[1:-1], limit // 2 - 1
    length = -(-len(inner) // stretches)
    rows = np.pad(inner, (0, stretches * length - len(inner)), mode="edge").reshape(stretches, length)
    starts = 1 + length * np.arange(stretches)
    extremes = np.concatenate([starts + rows.argmin(axis=1), starts + rows.argmax(axis=1)])
    return np.unique([0, *np.minimum(extremes, len(inner)), len(values) - 1])


def _read_curves(run: Run) -> tuple[dict[str, Curve], float | None]:
    """Return the curves by metric, and the epochs per step; nothing if metrics.jsonl cannot be read."""
    try:
        rows = run.rows()
    except InputError:
        return {}, None
    points: dict[str, list[tuple[int, float]]] = {}
    epochs_per_step = None
    for row in rows:
        step, epoch = row.get("step"), row.get("epoch")
        if type(step) is not int or not 0 <= step < 1 << 31:
            continue
        if step and isinstance(epoch, int | float) and 0 < epoch < _MAX_EPOCHS:
            epochs_per_step = epoch / step
        for name, value in row.items():
            if "/" in name and type(value) in (int, float) and abs(value) < _MAX_VALUE:
                points.setdefault(name, []).append((step, value))
    by_metric = {
        name: (np.array([step for step, _ in curve]), np.array([value for _, value in curve]))
        for name, curve in points.items()
    }
    return by_metric, epochs_per_step
