"""Test whether settings differ by more than chance, treating both the examples and the seeds as samples.

All runs predict the same examples. The paired bootstrap resamples these examples once for all runs. It estimates how
the mean over a setting's seeds would vary with other examples, and how much of that variation the seeds do not share.

Seeds are not resampled. With three to five seeds a bootstrap is too narrow: it estimates (n - 1) / n of the variance
and ignores Student's t. Resampling seeds and examples together also counts their interaction three times (Owen 2007,
"The pigeonhole bootstrap"). Instead, the sample variance over seeds is used, and the interaction is counted once.
Runs with equal seeds are not treated as pairs.

docs/comparing.md has the formulas. tests/comparison/test_intervals.py checks by simulation how often intervals miss
the truth, and shows where the plain hierarchical bootstrap fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from afqmc.comparison.bootstrap import Resampled
from afqmc.comparison.distributions import normal_quantile, t_quantile, t_tail
from afqmc.comparison.seed_variance import SeedVariance
from afqmc.results.resampled_metrics import Array

ALPHA, POWER = 0.05, 0.8
MAX_SEEDS = 100  # more seeds are not a useful recommendation
MORE_EXAMPLES = (1, 2, 4)  # a plan has as many examples as now, or this many times as many
_ROUNDING = 1e-8  # in the metric's unit: smaller differences are rounding errors
# confidence of the lower end that a plan assumes; with it, the power is about 80% on average (simulated)
_PLAN_CONFIDENCE = 0.6
# standard deviation over seeds beyond that of the examples, relative to that of a run's own examples, if no setting of
# a comparison has two seeds: they correspond to 0.4 and 0.7 points of accuracy over seeds on AFQMC's 4316 dev pairs
ASSUMED_SEED_RATIOS = (0.87, 2.1)


@dataclass(frozen=True)
class Plan:
    """Examples and seeds that detect a difference with a power of 80%; ``seeds`` is None for more than 100."""

    examples: int
    seeds: int | None


@dataclass(frozen=True)
class OtherSeeds:
    """95% interval of a difference of single runs if their seeds were others, which vary by ``deviation``."""

    deviation: float
    low: float
    high: float
    is_assumed: bool


@dataclass(frozen=True)
class Difference:
    """The metric of setting a minus that of setting b, in the metric's own unit. The names are keys of the JSON output.

    Attributes:
        value: Difference between the means over seeds, minus ``correction``.
        error: Its standard error.
        low: Lower end of its 95% confidence interval. All intervals of a comparison hold together (Bonferroni).
        high: Upper end of that interval.
        p: P-value, not adjusted for multiple comparisons.
        p_adjusted: P-value with Bonferroni's adjustment: at most 5% if and only if the interval excludes 0.
        seeds: Number of seeds of a and of b.
        over_seeds: Whether the result generalizes to other seeds. If not, it is about these particular runs.
        detectable: Smallest difference that these seeds and examples detect with a power of 80%.
        assumed: The difference that ``plans`` are made for: a cautious estimate; 0 if none can be named.
        plans: Seeds and examples that detect ``assumed`` with a power of 80%, from few examples to many. Empty if this
            difference is significant, or nothing can be planned.
        correction: What was subtracted because the runs of a chose their weights among more evaluations than those of
            b.
        other_seeds: For single runs: the interval for other seeds, by how much these vary.
        bound: The settings differ by less than this, at the same level as the interval (two one-sided tests, Schuirmann
            1987).
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
    assumed: float = 0.0
    plans: tuple[Plan, ...] = ()
    correction: float = 0.0
    other_seeds: tuple[OtherSeeds, ...] = ()
    bound: float = math.inf

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is at most 5%."""
        return self.p_adjusted <= ALPHA

    def negated(self) -> Difference:
        """Return b minus a."""
        other_seeds = tuple(replace(one, low=-one.high, high=-one.low) for one in self.other_seeds)
        return replace(
            self,
            value=-self.value,
            low=-self.high,
            high=-self.low,
            seeds=self.seeds[::-1],
            correction=-self.correction,
            other_seeds=other_seeds,
        )


def variance_of_difference(examples: Array, seeds_a: Array, seeds_b: Array) -> Array:
    """Return V = V_examples + V_a + V_b; rounding errors become 0."""
    total = examples + seeds_a + seeds_b
    return np.where(total > _ROUNDING**2, total, 0)


def degrees_of_freedom(variance: Array, components: Sequence[tuple[Array, Array | float]]) -> Array:
    """Return Satterthwaite's V**2 / sum(v**2 / df) over the components (v, df); 1 if the variance is 0."""
    squares = sum(component**2 / np.maximum(df, 1) for component, df in components)
    is_known = (variance > 0) & (squares > 0)
    return np.asarray(np.divide(variance**2, squares, out=np.ones_like(variance), where=is_known))


class PairwiseTests:
    """K settings evaluated on the same examples, and the differences between all pairs of them.

    Attributes:
        means: Metric of each setting, averaged over its seeds, (K,).
        seeds: Number of seeds of each setting, (K,).
        examples: Number of examples.
        units: Number of independent examples, or groups of examples.
        draws: The means on R resamples of the examples, (R, K).
        seed_variance: How much seeds vary.
        p: P-value of each pair, (K, K).
        p_adjusted: P-values with Bonferroni's adjustment over all pairs, so that the best setting may be chosen by
            looking at the results; with a baseline, over its pairs, and 1 for all others; (K, K).
    """

    def __init__(
        self,
        resampled: Resampled,
        setting: Sequence[int],
        has_baseline: bool = False,
        corrections: Array | None = None,
        alpha: float = ALPHA,
    ) -> None:
        """Test the settings.

        Args:
            resampled: Metric of each run, on all examples and on resamples.
            setting: The index of each run's setting, from 0.
            has_baseline: Whether setting 0, chosen before looking at the results, is compared with each other one.
            corrections: Subtracted from the mean of each setting in differences, (K,).
            alpha: Level of all intervals together; smaller if this is one of several such comparisons.
        """
        self._level = alpha
        self._has_baseline = has_baseline
        index = np.asarray(setting)
        self.seeds = np.bincount(index)
        self.examples, self.units = resampled.examples, resampled.units
        averaging = (index[:, None] == np.arange(len(self.seeds))) / self.seeds  # (M, K): runs to means
        self.means, self.draws = resampled.values @ averaging, resampled.draws @ averaging
        self._corrections = np.zeros(len(self.seeds)) if corrections is None else corrections
        self._covariance = np.atleast_2d(np.cov(self.draws, rowvar=False))  # of the means, over samples of examples
        self.seed_variance = SeedVariance.estimate(resampled.values, resampled.draws, index, averaging, self.seeds)
        self.p, self.p_adjusted = self._p_values()

    @property
    def comparisons(self) -> int:
        """Number of pairs that are compared."""
        if self._has_baseline:
            return len(self.seeds) - 1
        return len(self.seeds) * (len(self.seeds) - 1) // 2

    @property
    def run_variance(self) -> float:
        """Variance of a run's metric over samples of examples, without what it shares with other runs."""
        several = self.seeds > 1
        if several.any():
            return float(np.mean((self.seed_variance.interaction * self.seeds)[several]))
        a, b = np.triu_indices(len(self.seeds), 1)
        return float(np.mean(self._examples_variance(a, b)) / 2)

    def is_better(self, a: int, b: int, sign: int) -> bool:
        """Return whether setting a is significantly better than b; ``sign`` is -1 if lower values are better."""
        return bool(self.p_adjusted[a, b] <= ALPHA and sign * self._difference(a, b) > 0)

    def margin_of_mean(self, index: int) -> float:
        """Return half of the 95% interval of a setting's mean, over examples and, with several seeds, seeds."""
        variances = self.seed_variance
        examples = np.maximum(self._covariance[index, index] - variances.interaction[index], 0)
        variance = examples + variances.total[index]
        own_df = variances.pooled_df if variances.is_pooled[index] else self.seeds[index] - 1
        df = degrees_of_freedom(variance, [(examples, self.units - 1), (variances.observed[index], own_df)])
        return float(t_quantile(1 - ALPHA / 2, df) * np.sqrt(variance))

    def difference(self, a: int, b: int) -> Difference:
        """Return the difference between two settings, given by their indices."""
        value = float(self._difference(a, b))
        over_seeds = bool(self._over_seeds(a, b))
        variance, df = self._uncertainty(a, b)
        error = float(np.sqrt(variance))
        margin = t_quantile(1 - self._alpha / 2, df) * error
        one_sided = float(t_quantile(1 - self._alpha, df) * error)
        assumed, plans = 0.0, tuple[Plan, ...]()
        if self.p_adjusted[a, b] > ALPHA and value:
            assumed, plans = self._plans(a, b, abs(value), error, over_seeds)
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
            assumed=assumed,
            plans=plans,
            correction=float(self._corrections[a] - self._corrections[b]),
            other_seeds=() if over_seeds or not error else tuple(self._other_seeds(a, b, value)),
            bound=abs(value) + one_sided,
        )

    @property
    def _alpha(self) -> float:
        """The level of each comparison, such that all hold together (Bonferroni)."""
        return self._level / max(self.comparisons, 1)

    def _plans(self, a: int, b: int, value: float, error: float, over_seeds: bool) -> tuple[float, tuple[Plan, ...]]:
        """Return the difference to plan for, and the numbers of examples and seeds that detect it."""
        assumed = max(value - normal_quantile(_PLAN_CONFIDENCE) * error, 0.0)
        if assumed <= _ROUNDING:
            return 0.0, ()
        if not over_seeds:
            quantiles = normal_quantile(1 - self._alpha / 2) + normal_quantile(POWER)
            variance_per_example = float(self._examples_variance(a, b)) * self.examples
            needed = math.ceil(variance_per_example * (quantiles / assumed) ** 2)
            return assumed, (Plan(max(needed, self.examples), None),)
        seeds = np.arange(2, MAX_SEEDS + 1)
        plans = []
        for factor in MORE_EXAMPLES:
            enough = seeds[self._detectable(a, b, seeds, factor) <= assumed]
            plans.append(Plan(self.examples * factor, int(enough[0]) if len(enough) else None))
        return assumed, tuple(plans)

    def _other_seeds(self, a: int, b: int, value: float) -> list[OtherSeeds]:
        """Return the intervals of a difference of single runs for other seeds."""
        variance = self.seed_variance
        run_variance = self.run_variance
        is_assumed = not variance.usual
        beyond = (
            [ratio**2 * run_variance for ratio in ASSUMED_SEED_RATIOS]
            if is_assumed
            else [max(variance.usual - run_variance, 0.0)]
        )
        intervals = []
        for extra in beyond:
            total = float(self._examples_variance(a, b)) + extra * float((1 / self.seeds[[a, b]]).sum())
            margin = normal_quantile(1 - self._alpha / 2) * math.sqrt(total)
            deviation = math.sqrt(run_variance + extra)
            intervals.append(OtherSeeds(deviation, value - margin, value + margin, is_assumed))
        return intervals

    def _difference(self, a: int | Array, b: int | Array) -> Array:
        corrected = self.means - self._corrections
        difference = corrected[a] - corrected[b]
        return np.asarray(np.where(np.abs(difference) > _ROUNDING, difference, 0.0))

    def _over_seeds(self, a: int | Array, b: int | Array) -> Array:
        """Return whether both settings have several seeds; a single run says nothing about other seeds."""
        return np.asarray((self.seeds[a] > 1) & (self.seeds[b] > 1))

    def _examples_variance(self, a: int | Array, b: int | Array) -> Array:
        """Return the variance of the difference over samples of examples.

        The interaction is left out if the variance over seeds includes it already.
        """
        covariance = self._covariance
        interaction = self.seed_variance.interaction[a] + self.seed_variance.interaction[b]
        total = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        return np.asarray(np.maximum(total - np.where(self._over_seeds(a, b), interaction, 0), 0))

    def _uncertainty(
        self, a: int | Array, b: int | Array, seeds: Array | None = None, more_examples: float = 1
    ) -> tuple[Array, Array]:
        """Return variance and degrees of freedom of the difference, now or with other numbers of seeds and examples.

        More examples reduce the variance over examples and the interaction, not what seeds vary beyond that.
        """
        variances, over_seeds = self.seed_variance, self._over_seeds(a, b)
        examples_variance = self._examples_variance(a, b) / more_examples
        n_a, n_b = self.seeds[a], self.seeds[b]
        new_a, new_b = (n_a, n_b) if seeds is None else (seeds, seeds)

        def of_seeds(setting: int | Array, n: Array, new: Array) -> tuple[Array, Array]:
            shrunk = variances.beyond_examples[setting] + variances.interaction[setting] / more_examples
            total = np.where(over_seeds, variances.total[setting], 0)
            scale = n / new * np.divide(shrunk, total, out=np.ones_like(shrunk + total), where=total > 0)
            return total * scale, np.where(over_seeds, variances.observed[setting], 0) * scale

        total_a, observed_a = of_seeds(a, n_a, new_a)
        total_b, observed_b = of_seeds(b, n_b, new_b)
        # more seeds for these two settings are assumed to come with as many more for the pooled variance
        growth = 1 if seeds is None else (seeds - 1) / (np.maximum(np.maximum(n_a, n_b), 2) - 1)
        pooled_a, pooled_b = variances.is_pooled[a], variances.is_pooled[b]
        variance = variance_of_difference(examples_variance, total_a, total_b)
        df = degrees_of_freedom(
            variance,
            [
                (examples_variance, self.units * more_examples - 1),
                (np.where(pooled_a, 0, observed_a), new_a - 1),
                (np.where(pooled_b, 0, observed_b), new_b - 1),
                (
                    np.where(pooled_a, observed_a, 0) + np.where(pooled_b, observed_b, 0),
                    variances.pooled_df * growth,
                ),
            ],
        )
        return variance, df

    def _detectable(self, a: int, b: int, seeds: Array | None = None, more_examples: float = 1) -> Array:
        variance, df = self._uncertainty(a, b, seeds, more_examples)
        return np.asarray((t_quantile(1 - self._alpha / 2, df) + t_quantile(POWER, df)) * np.sqrt(variance))

    def _p_values(self) -> tuple[Array, Array]:
        a, b = np.triu_indices(len(self.seeds), 1)
        family = a == 0 if self._has_baseline else np.ones(len(a), dtype=bool)
        variance, df = self._uncertainty(a, b)
        distance = np.abs(self._difference(a, b))
        statistic = np.divide(distance, np.sqrt(variance), out=np.zeros_like(distance), where=variance > 0)
        p = np.asarray(2 * t_tail(statistic, df))
        adjusted = np.where(family, np.minimum(p * max(self.comparisons, 1), 1), 1)
        return _symmetric(p, len(self.seeds)), _symmetric(adjusted, len(self.seeds))


def _symmetric(upper: Array, size: int) -> Array:
    """Return the symmetric matrix with these values above the diagonal and ones on it."""
    matrix = np.eye(size)
    rows, columns = np.triu_indices(size, 1)
    matrix[rows, columns] = matrix[columns, rows] = upper
    return matrix
