"""Estimate how much the seeds of each setting vary, and how well that is known.

A setting with two or three seeds gives a poor estimate of its own. Among many such settings some agree by chance, so
no setting is taken to vary less than is usual among all settings. A setting that varies more keeps its own variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afqmc.comparison.distributions import chi2_median, f_tail
from afqmc.results.resampled_metrics import Array

_STANDS_OUT = 0.1  # p-value of the F-test below which a setting varies more than is usual
_UNLIKE = 0.05  # the same for any setting of a comparison, divided by their number


@dataclass(frozen=True)
class SeedVariance:
    """Variances of the means over seeds, of K settings; all in the squared unit of the metric.

    Attributes:
        interaction: The part that other examples would change too, since the seeds of a setting do not share it, (K,).
        total: Variance of the mean over seeds, interaction included, (K,).
        observed: The part of ``total`` that was estimated from seeds; the interaction is known from all examples, (K,).
        is_pooled: Whether the degrees of freedom are those of all settings together, (K,).
        pooled_df: Degrees of freedom of all settings together.
        usual: Usual variance of a single run; 0 if every setting has a single run.
    """

    interaction: Array
    total: Array
    observed: Array
    is_pooled: Array
    pooled_df: int
    usual: float

    @classmethod
    def estimate(cls, values: Array, draws: Array, index: Array, averaging: Array, seeds: Array) -> SeedVariance:
        """Estimate the variances.

        Args:
            values: Metric of each run, (M,).
            draws: The same on R resamples of the examples, (R, M).
            index: The setting of each run, (M,).
            averaging: Matrix that maps runs to the means of settings, (M, K).
            seeds: Number of seeds of each setting, (K,).
        """
        df = np.maximum(seeds - 1, 1)
        interaction = (draws - (draws @ averaging)[:, index]).var(axis=0, ddof=1) @ averaging / df
        between = (values - (values @ averaging)[index]) ** 2 @ averaging / df
        pooled_df = int((seeds - 1).sum())
        usual = usual_variance(between * seeds, seeds - 1)
        pooled = usual / seeds
        is_usual = (pooled >= between) & (pooled >= interaction)
        return cls(
            interaction=interaction,
            total=np.where(is_usual, pooled, np.maximum(between, interaction)),
            observed=np.where(is_usual, pooled, between),
            is_pooled=is_usual | _is_within_usual(between, np.maximum(pooled, interaction), seeds - 1, pooled_df),
            pooled_df=pooled_df,
            usual=usual,
        )

    @property
    def beyond_examples(self) -> Array:
        """The part that other examples would not change, (K,)."""
        return np.asarray(np.maximum(self.total - self.interaction, 0))


def usual_variance(variances: Array, df: Array) -> float:
    """Return the usual variance of a single run among several settings.

    This is the mean over settings, or the median if a few unstable settings raise the mean above it.

    Args:
        variances: Variance of a single run of each setting, (K,).
        df: Its degrees of freedom, (K,); settings with 0 are left out.
    """
    valid = df > 0
    if not valid.any():
        return 0.0
    median_ratio = chi2_median(df[valid]) / df[valid]  # median of an estimate, relative to the true variance
    mean, median = np.average(variances[valid], weights=df[valid]), np.median(variances[valid] / median_ratio)
    return float(min(mean, median))


def _is_within_usual(between: Array, usual: Array, df: Array, pooled_df: int) -> Array:
    """Return whether the seeds of a setting vary no more than is usual, as far as an F-test can tell, (K,).

    If any setting varies far more, or if settings have two seeds, none is taken to be usual: with so few seeds, a
    setting that varies much often looks usual, and its differences would be found too often.
    """
    if pooled_df == 0:
        return np.zeros(len(between), dtype=bool)
    ratio = np.divide(between, usual, out=np.ones_like(between), where=usual > 0)
    p = f_tail(ratio, np.maximum(df, 1), pooled_df)
    p[df == 0] = 1
    are_alike = p.min() >= _UNLIKE / len(p)
    return np.asarray((df >= 2) & (p >= _STANDS_OUT) & are_alike)
