"""Test whether settings differ by more than chance, treating both the examples and the seeds as samples.

All runs predict the same examples. The paired bootstrap resamples these examples once for all runs. It estimates how
the mean over a setting's seeds would vary with other examples, and how much of that variation the seeds do not share.

Seeds are not resampled. With three to five seeds a bootstrap is too narrow: it estimates (n - 1) / n of the variance
and ignores Student's t. Resampling seeds and examples together also counts their interaction three times (Owen 2007,
"The pigeonhole bootstrap"). Instead, the sample variance over seeds is used, and the interaction is counted once.

Among many settings with two or three seeds, some agree by chance and would look significantly different from the others
in every second sweep. Therefore the variance of a setting is never taken to be below the variance pooled over all
settings. Runs with equal seeds are not treated as pairs.

For the difference between the means of settings a and b, with n_a and n_b seeds and N examples:

    V  = V_examples + V_a + V_b                               V_k: variance of the mean over the n_k seeds of setting k
    df = V**2 / (V_examples**2 / (N - 1) + sum over the settings with their own variance of V_k**2 / (n_k - 1)
                 + (sum over the settings with the pooled variance of V_k)**2 / df_pooled)          (Satterthwaite)

Intervals and p-values are those of Student's t with df degrees of freedom. tests/comparison/test_calibration.py checks
their coverage by simulation, and shows where the plain hierarchical bootstrap fails.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from afqmc.results.resampled_metrics import Array, LabelledPredictions, resample_counts, resampled_metric

ALPHA, POWER = 0.05, 0.8
RESAMPLES = 2000
MAX_SEEDS = 100  # more seeds are not a useful recommendation
_ROUNDING = 1e-8  # in the metric's unit: smaller differences are rounding errors
_BATCH_SIZE = 1 << 19  # examples times resamples per batch: about what fits into the processor's cache


@dataclass(frozen=True)
class Resampled:
    """A metric of M runs: ``values`` (M,) on all ``examples``, and ``draws`` (R, M) on R resamples of them."""

    values: Array
    draws: Array
    examples: int


def resample(name: str, answers: Sequence[LabelledPredictions], resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Bootstrap a metric over the examples, with the same resamples for every run.

    Resamples on which the metric is undefined are dropped.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    examples = len(answers[0].gold)

    def statistic(rows: Array, axis: int) -> Array:
        return resampled_metric(name, answers, resample_counts(rows, examples))

    with warnings.catch_warnings():
        # scipy warns about its own interval, which is not used, when the metric is undefined on a resample
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (np.arange(examples),),
            statistic,
            vectorized=True,
            method="percentile",
            n_resamples=resamples,
            batch=max(1, _BATCH_SIZE // examples),
            rng=np.random.default_rng(seed),
        )
    draws = result.bootstrap_distribution.T
    values = resampled_metric(name, answers, np.ones((examples, 1), dtype=np.float32))[:, 0]
    return Resampled(values, draws[np.isfinite(draws).all(axis=1)], examples)


@dataclass(frozen=True)
class Difference:
    """The metric of setting a minus that of setting b, in the metric's own unit. The names are keys of the JSON output.

    Attributes:
        value: Difference between the means over seeds.
        error: Its standard error.
        low: Lower end of its 95% confidence interval, not adjusted for multiple comparisons.
        high: Upper end of that interval.
        p: P-value, not adjusted for multiple comparisons.
        p_adjusted: P-value with Holm's adjustment over all pairs of the settings compared.
        seeds: Number of seeds of a and of b.
        over_seeds: Whether the result generalizes to other seeds. If not, it is about these particular runs.
        detectable: Smallest difference that these seeds and examples detect with a power of 80%.
        seeds_needed: Seeds per setting that detect this difference with a power of 80%. None if it is significant, or
            if 100 seeds are not enough.
        examples_needed: Examples that detect this difference with a power of 80%, for these runs or with unlimited
            seeds. None if it is significant, or if the present examples are enough.
    """

    value: float
    error: float
    low: float
    high: float
    p: float
    p_adjusted: float
    seeds: tuple[int, int]
    over_seeds: bool
    detectable: float
    seeds_needed: int | None
    examples_needed: int | None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is at most 5%."""
        return self.p_adjusted <= ALPHA

    def negated(self) -> Difference:
        """Return b minus a."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low, seeds=self.seeds[::-1])


def variance_of_difference(examples: Array, seeds_a: Array, seeds_b: Array) -> Array:
    """Return V = V_examples + V_a + V_b; rounding errors become 0."""
    total = examples + seeds_a + seeds_b
    return np.where(total > _ROUNDING**2, total, 0)


def degrees_of_freedom(variance: Array, components: Sequence[tuple[Array, Array | float]]) -> Array:
    """Return Satterthwaite's V**2 / sum(v**2 / df) over the components (v, df); 1 if the variance is 0."""
    squares = sum(component**2 / np.maximum(df, 1) for component, df in components)
    return np.asarray(np.divide(variance**2, squares, out=np.ones_like(variance), where=variance > 0))


class PairwiseTests:
    """K settings evaluated on the same examples, and the differences between all pairs of them.

    Attributes:
        means: Metric of each setting, averaged over its seeds, (K,).
        seeds: Number of seeds of each setting, (K,).
        examples: Number of examples.
        draws: The means on R resamples of the examples, (R, K).
        p: P-value of each pair, (K, K).
        p_adjusted: P-values with Holm's adjustment over all pairs, so that the best setting may be chosen by looking
            at the results; with a baseline, over its pairs, and 1 for all others; (K, K).
    """

    def __init__(self, resampled: Resampled, setting: Sequence[int], has_baseline: bool = False) -> None:
        """Test the settings.

        Args:
            resampled: Metric of each run, on all examples and on resamples.
            setting: The index of each run's setting, from 0.
            has_baseline: Whether setting 0, chosen before looking at the results, is compared with each other one.
        """
        self._has_baseline = has_baseline
        index = np.asarray(setting)
        self.seeds = np.bincount(index)
        self.examples = resampled.examples
        averaging = (index[:, None] == np.arange(len(self.seeds))) / self.seeds  # (M, K): runs to means
        self.means, self.draws = resampled.values @ averaging, resampled.draws @ averaging
        self._covariance = np.atleast_2d(np.cov(self.draws, rowvar=False))  # of the means, over samples of examples
        df = np.maximum(self.seeds - 1, 1)
        # the following are variances of the means, (K,); the interaction is the part of the covariance's diagonal that
        # the seeds of a setting do not share, and it is also part of the sample variance between seeds
        self._interaction = (resampled.draws - self.draws[:, index]).var(axis=0, ddof=1) @ averaging / df
        between_seeds = (resampled.values - self.means[index]) ** 2 @ averaging / df
        self._own = np.maximum(between_seeds, self._interaction)
        self._pooled_df = int((self.seeds - 1).sum())
        pooled = _pooled_variance(between_seeds * self.seeds, self.seeds - 1) / self.seeds
        self._is_pooled = (pooled >= between_seeds) & (pooled >= self._interaction)
        self._seed_variance = np.where(self._is_pooled, pooled, self._own)
        self.p, self.p_adjusted = self._p_values()

    @property
    def comparisons(self) -> int:
        """Number of pairs that are compared."""
        if self._has_baseline:
            return len(self.seeds) - 1
        return len(self.seeds) * (len(self.seeds) - 1) // 2

    def difference(self, a: int, b: int) -> Difference:
        """Return the difference between two settings, given by their indices."""
        from scipy.stats import norm, t

        value = float(self._difference(a, b))
        over_seeds = bool(self._over_seeds(a, b))
        variance, df = self._uncertainty(a, b)
        error = float(np.sqrt(variance))
        margin = t.ppf(1 - ALPHA / 2, df) * error
        significant = self.p_adjusted[a, b] <= ALPHA
        seeds_needed = examples_needed = None
        if not significant and over_seeds and value:
            more_seeds = np.arange(int(self.seeds[[a, b]].max()) + 1, MAX_SEEDS + 1)
            sufficient = more_seeds[self._detectable(a, b, more_seeds) <= abs(value)]
            seeds_needed = int(sufficient[0]) if len(sufficient) else None
        if not significant and value:
            quantiles = norm.ppf(1 - self._alpha / 2) + norm.ppf(POWER)
            variance_per_example = float(self._examples_variance(a, b)) * self.examples
            required = math.ceil(variance_per_example * (quantiles / value) ** 2)
            examples_needed = required if required > self.examples else None
        return Difference(
            value=value,
            error=error,
            low=float(value - margin),
            high=float(value + margin),
            p=float(self.p[a, b]),
            p_adjusted=float(self.p_adjusted[a, b]),
            seeds=(int(self.seeds[a]), int(self.seeds[b])),
            over_seeds=over_seeds,
            detectable=float(self._detectable(a, b)),
            seeds_needed=seeds_needed,
            examples_needed=examples_needed,
        )

    def selection_bias(self, higher_is_better: bool) -> float:
        """Return by how much choosing the best setting on these examples inflates its metric, in the metric's unit.

        This is Efron's optimism: the advantage that the best setting of a resample has there but not on all examples.
        Seeds are redrawn too, as far as they vary beyond the examples. The estimate is a lower bound.
        """
        sign = 1 if higher_is_better else -1
        deviations = self.draws - self.draws.mean(axis=0)  # from the mean of the draws: few resamples shift that mean
        seed_noise = np.sqrt(self._own - self._interaction)
        deviations = deviations + np.random.default_rng(0).normal(0, seed_noise, deviations.shape)
        best = (sign * (self.means + deviations)).argmax(axis=1)
        return float(sign * deviations[np.arange(len(best)), best].mean())

    @property
    def _alpha(self) -> float:
        """The level that Holm's adjustment requires of the smallest p-value."""
        return ALPHA / max(self.comparisons, 1)

    def _difference(self, a: int | Array, b: int | Array) -> Array:
        difference = self.means[a] - self.means[b]
        return np.asarray(np.where(np.abs(difference) > _ROUNDING, difference, 0.0))

    def _over_seeds(self, a: int | Array, b: int | Array) -> Array:
        """Return whether both settings have several seeds; a single run says nothing about other seeds."""
        return np.asarray((self.seeds[a] > 1) & (self.seeds[b] > 1))

    def _examples_variance(self, a: int | Array, b: int | Array) -> Array:
        """Return the variance of the difference over samples of examples.

        The interaction is left out if the variance over seeds includes it already.
        """
        covariance, interaction = self._covariance, self._interaction[a] + self._interaction[b]
        total = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        return np.asarray(np.maximum(total - np.where(self._over_seeds(a, b), interaction, 0), 0))

    def _uncertainty(self, a: int | Array, b: int | Array, seeds: Array | None = None) -> tuple[Array, Array]:
        """Return variance and degrees of freedom of the difference, with the present or with other numbers of seeds."""
        over_seeds = self._over_seeds(a, b)
        examples_variance = self._examples_variance(a, b)
        n_a, n_b = self.seeds[a], self.seeds[b]
        new_a, new_b = (n_a, n_b) if seeds is None else (seeds, seeds)
        seeds_a = np.where(over_seeds, self._seed_variance[a] * n_a / new_a, 0)
        seeds_b = np.where(over_seeds, self._seed_variance[b] * n_b / new_b, 0)
        # more seeds for these two settings are assumed to come with as many more for the pooled variance
        growth = 1 if seeds is None else (seeds - 1) / (np.maximum(np.maximum(n_a, n_b), 2) - 1)
        pooled_a, pooled_b = self._is_pooled[a], self._is_pooled[b]
        variance = variance_of_difference(examples_variance, seeds_a, seeds_b)
        df = degrees_of_freedom(
            variance,
            [
                (examples_variance, self.examples - 1),
                (np.where(pooled_a, 0, seeds_a), new_a - 1),
                (np.where(pooled_b, 0, seeds_b), new_b - 1),
                (np.where(pooled_a, seeds_a, 0) + np.where(pooled_b, seeds_b, 0), self._pooled_df * growth),
            ],
        )
        return variance, df

    def _detectable(self, a: int, b: int, seeds: Array | None = None) -> Array:
        from scipy.stats import t

        variance, df = self._uncertainty(a, b, seeds)
        return np.asarray((t.ppf(1 - self._alpha / 2, df) + t.ppf(POWER, df)) * np.sqrt(variance))

    def _p_values(self) -> tuple[Array, Array]:
        from scipy.stats import t
        from statsmodels.stats.multitest import multipletests

        a, b = np.triu_indices(len(self.seeds), 1)
        family = a == 0 if self._has_baseline else np.ones(len(a), dtype=bool)
        variance, df = self._uncertainty(a, b)
        distance = np.abs(self._difference(a, b))
        statistic = np.divide(distance, np.sqrt(variance), out=np.zeros_like(distance), where=variance > 0)
        p = np.asarray(2 * t.sf(statistic, df))
        adjusted = np.ones(len(p))
        adjusted[family] = multipletests(p[family], ALPHA, method="holm")[1]
        return _symmetric(p, len(self.seeds)), _symmetric(adjusted, len(self.seeds))


def _pooled_variance(variances: Array, df: Array) -> float:
    """Return the usual variance of a single run among several settings.

    This is the mean over settings, or the median if a few unstable settings raise the mean above it.
    """
    from scipy.stats import chi2

    valid = df > 0
    if not valid.any():
        return 0.0
    median_ratio = chi2.ppf(0.5, df[valid]) / df[valid]  # median of an estimate, relative to the true variance
    mean, median = np.average(variances[valid], weights=df[valid]), np.median(variances[valid] / median_ratio)
    return float(min(mean, median))


def _symmetric(upper: Array, size: int) -> Array:
    """Return the symmetric matrix with these values above the diagonal and ones on it."""
    matrix = np.eye(size)
    rows, columns = np.triu_indices(size, 1)
    matrix[rows, columns] = matrix[columns, rows] = upper
    return matrix
