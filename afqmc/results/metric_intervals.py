"""95% intervals of the metrics of one model: how much other pairs would change them. Other seeds are not included."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from afqmc.evaluation.metrics import has_prediction
from afqmc.results.resampled_metrics import MEASURES, Array, LabelledPredictions, resample_counts, resampled_metric

_RESAMPLES = 500
_BATCH = 50  # resamples at once, which bounds the memory


def metric_intervals(
    logits: Array, gold: Array, names: Iterable[str] = MEASURES, groups: Array | None = None
) -> dict[str, tuple[float, float]]:
    """Return the 95% intervals of metrics, by the percentile bootstrap over the pairs.

    The same pairs give the same intervals: the resamples are drawn with a fixed seed.

    Args:
        logits: Logits or log-probabilities (N, C).
        gold: Class indices (N,).
        names: Of the metrics.
        groups: The group of each pair, (N,), from 0: pairs that share a sentence are drawn together.

    Returns:
        Lowest and highest value by name. Metrics are left out if they are undefined on all pairs, or if any pair has no
        prediction.
    """
    if not has_prediction(logits).all() or len(gold) < 2:
        return {}
    units = len(gold) if groups is None else int(groups.max()) + 1
    answers = [LabelledPredictions(gold, logits.argmax(axis=1), logits.astype(np.float64))]
    rng, names = np.random.default_rng(0), list(names)
    draws: dict[str, list[Array]] = {name: [] for name in names}
    for _ in range(_RESAMPLES // _BATCH):
        counts = resample_counts(rng.integers(0, units, (_BATCH, units)), units)
        weights = counts if groups is None else np.ascontiguousarray(counts[groups])
        for name in names:
            draws[name].append(resampled_metric(name, answers, weights)[0])
    intervals = {}
    for name, parts in draws.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values):
            low, high = np.percentile(values, [2.5, 97.5])
            intervals[name] = (float(low), float(high))
    return intervals
