"""Learning curves of every run, thinned where there are more points than a page can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from afqmc.comparison.html.json_embedding import packed
from afqmc.results.resampled_metrics import Array
from afqmc.results.runs import Run
from afqmc.utils.errors import InputError

MOST_POINTS = 1_200_000  # in the whole page: about 10 MB
_STEPS = (2000, 1000, 500, 200, 100, 50, 20, 10)  # points a curve; the most that keeps the page below it
_METRICS = 20  # a run writes about a dozen
_MOST_EPOCHS, _LARGEST = 1e9, 1e30  # beyond these it is no figure of a training

Curve = tuple[Array, Array]  # steps and values, (N,) each


def curves(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page draws.

    Returns:
        ``names`` of the metrics, the commonest first; ``steps``, packed; of each run, in ``runs``, its epochs a step
        and by the metric's place the steps' place and the values; ``points`` there are, and the ``most`` kept a curve.
    """
    found = [_of(run) for run in runs]
    common = Counter(name for of_run, _ in found for name in of_run)
    names = [name for name, _ in common.most_common(_METRICS)]
    lengths = [len(of_run[name][0]) for of_run, _ in found for name in names if name in of_run]
    most = next((most for most in _STEPS if sum(min(n, most) for n in lengths) <= MOST_POINTS), _STEPS[-1])
    steps: dict[str, int] = {}  # most runs share theirs

    def written(curve: Curve) -> list[Any]:
        kept = thinned(curve[1], most)
        return [steps.setdefault(packed(curve[0][kept], "i4"), len(steps)), packed(curve[1][kept])]

    rows = [
        {"epoch": pace, "of": {place: written(of_run[name]) for place, name in enumerate(names) if name in of_run}}
        for of_run, pace in found
    ]
    shown = {
        "points": sum(lengths),
        "most": most if any(n > most for n in lengths) else None,
        "left_out": len(common) - len(names),
    }
    return {"names": names, "steps": list(steps), "runs": rows, **shown}


def thinned(values: Array, most: int) -> Array:
    """Places to keep, (at most ``most``,): the first, the last, and of each stretch between its lowest and highest."""
    if len(values) <= most:
        return np.arange(len(values))
    inner, stretches = values[1:-1], most // 2 - 1
    length = -(-len(inner) // stretches)
    rows = np.pad(inner, (0, stretches * length - len(inner)), mode="edge").reshape(stretches, length)
    starts = 1 + length * np.arange(stretches)
    ends = np.concatenate([starts + rows.argmin(axis=1), starts + rows.argmax(axis=1)])
    return np.unique([0, *np.minimum(ends, len(inner)), len(values) - 1])


def _of(run: Run) -> tuple[dict[str, Curve], float | None]:
    """By metric, and the epochs that a step is; nothing where metrics.jsonl cannot be read."""
    try:
        rows = run.rows()
    except InputError:
        return {}, None
    points: dict[str, list[tuple[int, float]]] = {}
    pace = None
    for row in rows:
        step, epoch = row.get("step"), row.get("epoch")
        if type(step) is not int or not 0 <= step < 1 << 31:
            continue
        if step and isinstance(epoch, int | float) and 0 < epoch < _MOST_EPOCHS:
            pace = epoch / step
        for name, value in row.items():
            if "/" in name and type(value) in (int, float) and abs(value) < _LARGEST:
                points.setdefault(name, []).append((step, value))
    return {name: (np.array([p[0] for p in of]), np.array([p[1] for p in of])) for name, of in points.items()}, pace
