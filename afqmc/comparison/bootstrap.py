"""Bootstrap a metric over the examples: the same resamples for all runs, so that differences are paired.

Examples that belong together, such as pairs that share a sentence, are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afqmc.results.resampled_metrics import Array, LabelledPredictions, resample_counts, resampled_metric

RESAMPLES = 2000
_BATCH_SIZE = 1 << 19  # examples times resamples per batch: about what fits into the processor's cache


@dataclass(frozen=True)
class Resampled:
    """A metric of M runs on all examples and on resamples of them.

    Attributes:
        values: The metric on all examples, (M,).
        draws: The metric on R resamples, (R, M).
        examples: Number of examples.
        units: Number of independent units that are drawn: of groups, or of examples if each is its own group.
    """

    values: Array
    draws: Array
    examples: int
    units: int


def resample(
    name: str,
    answers: Sequence[LabelledPredictions],
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Array | None = None,
) -> Resampled:
    """Bootstrap a metric over the examples, with the same resamples for every run.

    Resamples on which the metric is undefined are dropped.

    Args:
        name: The metric.
        answers: The predictions of M runs on the same N examples.
        resamples: Number of resamples.
        seed: Of the random numbers.
        groups: The group of each example, (N,), from 0: whole groups are drawn (cluster bootstrap, Field and Welsh
            2007). None: examples are independent.
    """
    examples = len(answers[0].gold)
    units = examples if groups is None else int(groups.max()) + 1
    rng, batch = np.random.default_rng(seed), max(1, _BATCH_SIZE // examples)
    parts = []
    for start in range(0, resamples, batch):
        counts = resample_counts(rng.integers(units, size=(min(batch, resamples - start), units)), units)
        parts.append(resampled_metric(name, answers, counts if groups is None else counts[groups]))
    draws = np.concatenate(parts, axis=1).T
    values = resampled_metric(name, answers, np.ones((examples, 1), dtype=np.float32))[:, 0]
    return Resampled(values, draws[np.isfinite(draws).all(axis=1)], examples, units)
