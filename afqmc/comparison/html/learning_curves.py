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

MAX_POINTS = 1_200_000  # in the whole page: about 10 MB
_CURVE_LIMITS = (2000, 1000, 500, 200, 100, 50, 20, 10)  # points per curve; the first one that fits is used
_MAX_METRICS = 40  # a run writes about two dozen
_MAX_EPOCHS, _MAX_VALUE = 1e9, 1e30  # larger numbers are invalid

Curve = tuple[Array, Array]  # steps and values, (N,) each


def curves(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the learning curves for the page.

    Returns:
        A dict with ``names`` of the metrics, most frequent first; ``steps``, the distinct arrays of steps, encoded;
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
    step_index: dict[str, int] = {}  # most runs have the same steps

    def encode(curve: Curve) -> list[Any]:
        steps, values = curve
        rows = downsample(values, limit)
        return [step_index.setdefault(base64_array(steps[rows], "i4"), len(step_index)), base64_array(values[rows])]

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
