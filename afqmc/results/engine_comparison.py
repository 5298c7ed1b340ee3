"""Compare the logits of engines with those of a reference, on the same labelled pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from afqmc.results.resampled_metrics import LabelledPredictions, resample_counts, resampled_metric

_RESAMPLES, _BATCH = 1000, 50
_METRICS = ("accuracy", "f1")
_DECIDED_METRICS = ("accuracy_decided", "f1_decided")


def compare_engines(
    logits: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    gold: np.ndarray,
    tolerance: float,
    decided: Mapping[str, np.ndarray],
    cross_fitted: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Return one row per engine: differences from the first one, accuracy and F1 with 95% intervals, and speed.

    With a decision, rows also have ``changed_decided``, ``accuracy_decided`` and ``f1_decided``.

    Intervals are percentiles of a bootstrap over the pairs, the same resamples for all engines.

    Args:
        logits: (N, C) by engine.
        seconds: Time by engine.
        gold: Classes, (N,).
        tolerance: Largest difference of a logit that counts as equal. NaN never does.
        decided: Classes that the run's decision predicts, (N,) by engine; empty without a decision.
        cross_fitted: The same for accuracy and F1, each pair decided by what other pairs chose; may be empty.
    """
    intervals = _intervals(logits, gold, cross_fitted)
    first, rows = next(iter(logits)), []
    for name, values in logits.items():
        difference = float(np.abs(values - logits[first]).max())
        changed = int((values.argmax(axis=1) != logits[first].argmax(axis=1)).sum())
        rows.append(
            {
                "engine": name,
                "max_logit_difference": difference,
                "within_tolerance": bool(difference <= tolerance),
                "changed_predictions": changed,
                **({"changed_decided": int((decided[name] != decided[first]).sum())} if decided else {}),
                "pairs_per_second": len(gold) / seconds[name],
                **intervals[name],
            }
        )
    return rows


def _intervals(
    logits: Mapping[str, np.ndarray], gold: np.ndarray, cross_fitted: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Return per engine and metric the value, and the ends of its 95% interval."""
    answers = [
        LabelledPredictions(
            gold, values.argmax(axis=1), np.nan_to_num(values.astype(np.float64)), decided=cross_fitted.get(name)
        )
        for name, values in logits.items()
    ]
    metrics = (*_METRICS, *(_DECIDED_METRICS if cross_fitted else ()))
    examples, rng = len(gold), np.random.default_rng(0)
    draws: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for _ in range(_RESAMPLES // _BATCH):
        counts = resample_counts(rng.integers(examples, size=(_BATCH, examples)), examples)
        for name in metrics:
            draws[name].append(resampled_metric(name, answers, counts))
    whole, result = np.ones((examples, 1), np.float32), {engine: dict[str, Any]() for engine in logits}
    for name in metrics:
        ends = np.nanpercentile(np.concatenate(draws[name], axis=1), (2.5, 97.5), axis=1)
        values = resampled_metric(name, answers, whole)[:, 0]
        for index, engine in enumerate(logits):
            low, high = ends[:, index]
            result[engine][name] = {"value": float(values[index]), "low": float(low), "high": float(high)}
    return result
