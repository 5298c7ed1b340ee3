"""Whether settings differ by more than chance, when both the dev examples and the seeds are samples.

All runs answered the same examples, so these are resampled once for all of them (the paired bootstrap): it gives how
the mean of a setting's seeds would vary with other examples, and how much of that the seeds do not share. The second
level, seeds, has three to five members and is not resampled: a bootstrap of so few is too narrow (it finds (n - 1) / n
of their variance, and knows no Student's t), and together with resampled examples it counts three times what seeds and
examples do jointly (Owen 2007, "The pigeonhole bootstrap"). The seeds' variance is taken as it is instead, that joint
part counted once. Among many settings of two or three seeds some agree by chance, and would be called different from
others in every second sweep: so no setting's seeds are taken to vary less than is usual among all the settings.
Intervals and p-values are Student's, with Satterthwaite's degrees of freedom.
Runs of equal seeds are not taken as pairs.
tests/test_comparison_calibration.py holds both to what they promise, and shows what the plain hierarchical bootstrap
does.
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
MOST_SEEDS = 100  # more than that is no advice
_ROUNDING = 1e-8  # in a metric's own unit: less is no difference, but how floating-point numbers add up
_PLACES = 1 << 19  # examples times resamples worked on at once: about what fits a processor's cache


@dataclass(frozen=True)
class Resampled:
    """A metric of M runs: ``values`` (M,) as they are, ``draws`` (R, M) on resamples of the ``examples``."""

    values: Array
    draws: Array
    examples: int


def resample(name: str, answers: Sequence[LabelledPredictions], resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Bootstrap over examples, the same for every run; resamples on which the metric is undefined are left out."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    examples = len(answers[0].gold)

    def statistic(rows: Array, axis: int) -> Array:
        return resampled_metric(name, answers, resample_counts(rows, examples))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # about its own interval, where a resample has no metric
        found = bootstrap(
            (np.arange(examples),), statistic, vectorized=True, method="percentile", n_resamples=resamples,
            batch=max(1, _PLACES // examples), rng=np.random.default_rng(seed),
        )  # fmt: skip
    draws = found.bootstrap_distribution.T
    values = resampled_metric(name, answers, np.ones((examples, 1), dtype=np.float32))[:, 0]
    return Resampled(values, draws[np.isfinite(draws).all(axis=1)], examples)


@dataclass(frozen=True)
class Difference:
    """The first setting's metric minus the second's, in the metric's own unit.

    Attributes:
        value: Difference of the means over seeds.
        error: Its standard error.
        low: Lower end of its 95% interval, this comparison taken alone.
        high: Upper end.
        p: Of this comparison taken alone.
        p_adjusted: Holm's, over all pairs of the settings compared.
        seeds: How many each has.
        over_seeds: Whether it is about settings, other seeds included, or about these very runs only.
        detectable: The least difference that would be found 4 times in 5 with these seeds and examples.
        seeds_needed: Of each, to find this difference 4 times in 5; None where it is found, or 100 would not do.
        examples_needed: Likewise, with these runs or with endless seeds; None where it is found, or these examples do.
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
    def is_found(self) -> bool:
        """Whether chance is no likely reason, after the correction for many comparisons."""
        return self.p_adjusted <= ALPHA

    def turned(self) -> Difference:
        """The second's minus the first's."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low, seeds=self.seeds[::-1])


class PairwiseTests:
    """K settings on the same examples, and the differences of all pairs of them.

    Attributes:
        means: Over each setting's seeds, (K,).
        seeds: How many, (K,).
        examples: How many.
        draws: The means on resamples of the examples, (R, K).
        p: Of each pair taken alone, (K, K).
        p_adjusted: Holm's over all pairs, so that the best may be chosen by looking, (K, K).
    """

    def __init__(self, found: Resampled, setting: Sequence[int]) -> None:
        """``setting`` is the number, from 0, of each run's setting."""
        number = np.asarray(setting)
        self.seeds = np.bincount(number)
        self.examples = found.examples
        member = (number[:, None] == np.arange(len(self.seeds))) / self.seeds  # (M, K)
        self.means, self.draws = found.values @ member, found.draws @ member
        self._covariance = np.atleast_2d(np.cov(self.draws, rowvar=False))  # of the means, over samples of examples
        freedom = np.maximum(self.seeds - 1, 1)
        strayed = (found.draws - self.draws[:, number]).var(axis=0, ddof=1)
        self._joint = strayed @ member / freedom  # the part of its diagonal that seeds do not share
        between = (found.values - self.means[number]) ** 2 @ member / freedom
        self._own = np.maximum(between, self._joint)  # variance of the means over draws of seeds, joint part included
        self._freedom = int((self.seeds - 1).sum())
        pooled = _usual(between * self.seeds, self.seeds - 1) / self.seeds
        self._is_pooled = (pooled >= between) & (pooled >= self._joint)
        self._of_seeds = np.where(self._is_pooled, pooled, self._own)
        self.p, self.p_adjusted = self._p_values()

    @property
    def comparisons(self) -> int:
        """How many pairs there are."""
        return len(self.seeds) * (len(self.seeds) - 1) // 2

    def difference(self, first: int, second: int) -> Difference:
        """All that is said of one pair of settings, by their numbers."""
        from scipy.stats import norm, t

        value = float(self._apart(first, second))
        over_seeds = bool(self._over_seeds(first, second))
        variance, freedom = self._uncertainty(first, second)
        error = float(np.sqrt(variance))
        reach = t.ppf(1 - ALPHA / 2, freedom) * error
        is_found = self.p_adjusted[first, second] <= ALPHA
        seeds_needed = examples_needed = None
        if not is_found and over_seeds and value:
            more = np.arange(int(self.seeds[[first, second]].max()) + 1, MOST_SEEDS + 1)
            enough = more[self._detectable(first, second, more) <= abs(value)]
            seeds_needed = int(enough[0]) if len(enough) else None
        if not is_found and value:
            quantiles = norm.ppf(1 - self._alpha / 2) + norm.ppf(POWER)
            variance_of_one = float(self._of_examples(first, second)) * self.examples
            enough_examples = math.ceil(variance_of_one * (quantiles / value) ** 2)
            examples_needed = enough_examples if enough_examples > self.examples else None
        return Difference(
            value, error, float(value - reach), float(value + reach),
            float(self.p[first, second]), float(self.p_adjusted[first, second]),
            (int(self.seeds[first]), int(self.seeds[second])), over_seeds,
            float(self._detectable(first, second)), seeds_needed, examples_needed,
        )  # fmt: skip

    def optimism(self, higher_is_better: bool) -> float:
        """By how much choosing the best setting on these examples flatters it, at least; in the metric's own unit.

        What the best of a resample has there, and not on the whole sample (Efron's optimism); seeds are drawn anew too,
        as far as they vary beyond the examples.
        """
        sign = 1 if higher_is_better else -1
        strays = self.draws - self.draws.mean(axis=0)  # about the means: what few resamples add is no choice
        strays = strays + np.random.default_rng(0).normal(0, np.sqrt(self._own - self._joint), strays.shape)
        best = (sign * (self.means + strays)).argmax(axis=1)
        return float(sign * strays[np.arange(len(best)), best].mean())

    @property
    def _alpha(self) -> float:
        """What the smallest p-value of the family has to stay under."""
        return ALPHA / max(self.comparisons, 1)

    def _apart(self, first: int | Array, second: int | Array) -> Array:
        found = self.means[first] - self.means[second]
        return np.asarray(np.where(np.abs(found) > _ROUNDING, found, 0.0))

    def _over_seeds(self, first: int | Array, second: int | Array) -> Array:
        """Of a setting with one run nothing is known about other seeds."""
        return np.asarray((self.seeds[first] > 1) & (self.seeds[second] > 1))

    def _of_examples(self, first: int | Array, second: int | Array) -> Array:
        """Variance of differences over samples of examples; of settings with endless seeds, or of the very runs."""
        covariance, joint = self._covariance, self._joint[first] + self._joint[second]
        whole = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
        return np.asarray(np.maximum(whole - np.where(self._over_seeds(first, second), joint, 0), 0))

    def _uncertainty(self, first: int | Array, second: int | Array, seeds: Array | None = None) -> tuple[Array, Array]:
        """Variance and degrees of freedom of differences, with the seeds there are or so many of each."""
        of_examples, over_seeds = self._of_examples(first, second), self._over_seeds(first, second)
        most = np.maximum(np.maximum(self.seeds[first], self.seeds[second]), 2)
        variance, squares, pooled = of_examples, of_examples**2 / max(self.examples - 1, 1), np.zeros(())
        for setting in (first, second):
            now, is_pooled = self.seeds[setting], self._is_pooled[setting]
            n = now if seeds is None else seeds
            of_seeds = np.where(over_seeds, self._of_seeds[setting] * now / n, 0)
            variance, pooled = variance + of_seeds, pooled + np.where(is_pooled, of_seeds, 0)
            squares = squares + np.where(is_pooled, 0, of_seeds) ** 2 / np.maximum(n - 1, 1)
        more = 1 if seeds is None else (seeds - 1) / (most - 1)
        squares = squares + pooled**2 / np.maximum(self._freedom * more, 1)
        variance = np.where(variance > _ROUNDING**2, variance, 0)
        return variance, np.divide(variance**2, squares, out=np.ones_like(variance), where=variance > 0)

    def _detectable(self, first: int, second: int, seeds: Array | None = None) -> Array:
        from scipy.stats import t

        variance, freedom = self._uncertainty(first, second, seeds)
        return np.asarray((t.ppf(1 - self._alpha / 2, freedom) + t.ppf(POWER, freedom)) * np.sqrt(variance))

    def _p_values(self) -> tuple[Array, Array]:
        from scipy.stats import t
        from statsmodels.stats.multitest import multipletests

        first, second = np.triu_indices(len(self.seeds), 1)
        variance, freedom = self._uncertainty(first, second)
        value = np.abs(self._apart(first, second))
        ratio = np.divide(value, np.sqrt(variance), out=np.zeros_like(value), where=variance > 0)
        p = np.asarray(2 * t.sf(ratio, freedom))
        adjusted = multipletests(p, ALPHA, method="holm")[1] if len(p) > 1 else p
        return _symmetric(p, len(self.seeds)), _symmetric(adjusted, len(self.seeds))


def _usual(variances: Array, freedom: Array) -> float:
    """Of one run among several settings: the mean, or the median where a few unstable settings draw the mean up."""
    from scipy.stats import chi2

    known = freedom > 0
    if not known.any():
        return 0.0
    of_equal = chi2.ppf(0.5, freedom[known]) / freedom[known]  # what the median is of estimates of the same variance
    mean, median = np.average(variances[known], weights=freedom[known]), np.median(variances[known] / of_equal)
    return float(min(mean, median))


def _symmetric(upper: Array, size: int) -> Array:
    """The values above the diagonal as a matrix, ones on it."""
    whole = np.eye(size)
    first, second = np.triu_indices(size, 1)
    whole[first, second] = whole[second, first] = upper
    return whole
