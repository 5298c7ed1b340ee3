"""Estimate by how much the best of several noisy results looks better than it is."""

from __future__ import annotations

import numpy as np

from afqmc.comparison.pairwise import ASSUMED_SEED_RATIOS, PairwiseTests
from afqmc.results.resampled_metrics import Array

_DRAWS = 2000


def selection_optimism(values: Array, variances: Array | float) -> float:
    """Return by how much the largest of several noisy values is too large on average, in their unit.

    A parametric bootstrap. The true values are unknown; the observed ones are spread wider than the true ones, since
    noise spreads them too. They are therefore moved towards their mean until they have the spread that is left without
    the noise. Then new noise is added, the largest value is chosen, and its noise is averaged over the draws.

    Args:
        values: K values, larger is better, (K,).
        variances: Variance of the noise of each, (K,), or of all.
    """
    count = len(values)
    if count < 2:
        return 0.0
    noise = np.broadcast_to(np.asarray(variances, dtype=float), count)
    observed = values.var(ddof=1)
    shrinkage = float(np.sqrt(max(observed - noise.mean(), 0) / observed)) if observed else 0.0
    likely = values.mean() + shrinkage * (values - values.mean())
    draws = np.random.default_rng(0).normal(0, np.sqrt(noise), (_DRAWS, count))
    best = (likely + draws).argmax(axis=1)
    return float(draws[np.arange(_DRAWS), best].mean())


def setting_selection_bias(
    tests: PairwiseTests, means: Array, seeds: Array, higher_is_better: bool
) -> tuple[float, float]:
    """Return by how much choosing the best of K settings flatters its metric, in the metric's unit, as a range.

    The noise of a setting is what other examples would change, without what all settings share, and what other seeds
    would change. Settings with a single run are taken to vary as much over seeds as is usual among the others, and both
    ends are equal. If all are single runs, the ends are for seeds that vary as little and as much as assumed.

    Args:
        tests: Of the settings that are compared, whose noise is taken to be that of all.
        means: The metric of all K settings, (K,).
        seeds: Their numbers of seeds, (K,).
        higher_is_better: Whether the largest metric is the best.
    """
    deviations = tests.draws - tests.draws.mean(axis=1, keepdims=True)  # without what all settings share
    compared, several = len(tests.seeds), tests.seeds > 1
    of_examples = deviations.var(axis=0, ddof=1) * compared / max(compared - 1, 1)
    signed = means if higher_is_better else -means
    if several.any():
        of_examples = np.maximum(of_examples - tests.seed_variance.interaction, 0)[several]
        of_seeds = max(tests.seed_variance.usual, tests.run_variance)
        bias = selection_optimism(signed, of_examples.mean() + of_seeds / seeds)
        return bias, bias
    low, high = (
        selection_optimism(signed, of_examples.mean() + ratio**2 * tests.run_variance / seeds)
        for ratio in ASSUMED_SEED_RATIOS
    )
    return low, high
