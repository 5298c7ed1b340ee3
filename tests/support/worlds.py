"""Simulated comparisons whose truth is known, in the unit of accuracy points on a dev set like AFQMC's.

A run's metric is the truth of its setting plus noise: what the examples do to all runs of a setting, what they do to
one run, and what the seed does beyond that. The bootstrap's draws are normal with the same variances. With 4316
examples, two seeds of a setting disagree on 7.7% of them and two settings on 9.9%; over seeds the standard deviation is
0.40 points, 0.30 of them because of the examples.

python tests/support/worlds.py [REPLICATIONS]    prints how often the printed statements are wrong
"""

import sys
from functools import partial

import numpy as np
from scipy.stats import norm
from simulated import answers_of, simulate

from afqmc.comparison.bootstrap import Resampled, resample
from afqmc.comparison.evaluations import EvaluationCounts, choice_corrections
from afqmc.comparison.pairwise import ALPHA, PairwiseTests
from afqmc.comparison.selection import setting_selection_bias
from afqmc.comparison.slices import slice_differences

EXAMPLES = 4316
OF_SETTING, OF_RUN, OF_SEED = 0.16, 0.30, 0.26  # standard deviations in points
MUCH = 0.63  # of the seed, if a run varies by 0.7 points over seeds
RESAMPLES = 300


def world(rng, truths, seeds, examples=EXAMPLES, seed_sd=OF_SEED, resamples=RESAMPLES):
    """Return the resampled metric of simulated runs, and the setting of each run.

    Args:
        rng: Source of randomness.
        truths: True metric of each setting.
        seeds: Number of seeds of each setting, or of all.
        examples: Number of examples.
        seed_sd: What seeds vary beyond the examples: of each setting, or of all.
        resamples: Number of bootstrap draws.
    """
    count = len(truths)
    index = np.repeat(np.arange(count), np.broadcast_to(seeds, count))
    scale = np.sqrt(EXAMPLES / examples)
    runs, seed_sds = len(index), np.broadcast_to(seed_sd, count)[index]
    values = np.asarray(truths, dtype=float)[index] + rng.normal(0, OF_SETTING * scale, count)[index]
    values = values + rng.normal(0, OF_RUN * scale, runs) + rng.normal(0, 1, runs) * seed_sds
    draws = values + rng.normal(0, OF_SETTING * scale, (resamples, count))[:, index]
    draws += rng.normal(0, OF_RUN * scale, (resamples, runs))
    return Resampled(values, draws, examples, examples), index


def error_rate(times, settings, seeds, has_baseline=False, **design):
    """Return the share of simulated comparisons of equal settings with any finding.

    Since an interval excludes 0 if and only if there is a finding, it is also the share in which any interval misses.
    """
    findings = 0
    for trial in range(times):
        tests = PairwiseTests(*world(np.random.default_rng(trial), np.zeros(settings), seeds, **design), has_baseline)
        findings += bool((tests.p_adjusted <= ALPHA).any())
    return findings / times


def power(times, settings, seeds, gain, **design):
    """Return the share of pairs found of the best setting with each other one; it is better by ``gain`` points."""
    truths = np.zeros(settings)
    truths[0] = gain
    found = 0.0
    for trial in range(times):
        tests = PairwiseTests(*world(np.random.default_rng(trial), truths, seeds, **design))
        found += (tests.p_adjusted[0, 1:] <= ALPHA).mean()
    return found / times


def power_of_plans(times, seeds, repeats=4, largest_gain=1.5):
    """Return the mean power of two settings with the number of seeds that a plan names, and how often one is named.

    True gains are uniform from 0 to 1.5 points, as differences between settings on AFQMC are.
    """
    found, named, unfound = 0, 0, 0
    for trial in range(times):
        rng = np.random.default_rng(trial)
        gain = rng.uniform(0, largest_gain)
        difference = PairwiseTests(*world(rng, [gain, 0], seeds)).difference(0, 1)
        if difference.significant:
            continue
        unfound += 1
        if not difference.plans or difference.plans[0].seeds is None:
            continue
        named += 1
        for _ in range(repeats):
            more = PairwiseTests(*world(rng, [gain, 0], difference.plans[0].seeds))
            found += bool(more.p_adjusted[0, 1] <= ALPHA)
    return found / (repeats * named), named / unfound


def grouped_error_rate(times, size, is_grouped=True, seeds=3, pairs=1200):
    """Return how often two equal settings differ significantly if ``size`` pairs each share a sentence.

    What a setting and what a run finds difficult is the same for the pairs of a group, apart from their own noise.
    Without ``is_grouped``, pairs are drawn one by one.
    """
    groups, findings = np.arange(pairs) // size, 0
    for trial in range(times):
        rng = np.random.default_rng(trial)

        def noise(sd, rng=rng):
            return rng.normal(0, sd, pairs // size)[groups]

        shared, answers = noise(1.0), []
        for _ in range(2):
            ease = 0.8 + shared + noise(0.5)
            for _ in range(seeds):
                margin = ease + noise(0.5) + rng.normal(0, 0.3, pairs) + rng.normal(0, 0.03)
                wrong = (margin < 0).astype(int)
                answers.append(answers_of(np.zeros(pairs, dtype=int), np.eye(2)[wrong]))
        resampled = resample("accuracy", answers, RESAMPLES, trial, groups if is_grouped else None)
        tests = PairwiseTests(resampled, np.repeat([0, 1], seeds))
        findings += bool(tests.p_adjusted[0, 1] <= ALPHA)
    return findings / times


def selection_bias_ratio(times, settings, seeds, spread=0.0, end=0, **design):
    """Return the mean of the printed selection bias, divided by that of the true one.

    The true one is calculated for equal settings with equal numbers of seeds, else it is the mean over replications.

    Args:
        times: Replications.
        settings: Number of settings; at most 20 are compared, as in the command.
        seeds: Seeds of each setting, or of all.
        spread: Standard deviation of the settings' truths, in points.
        end: The lower (0) or upper (1) end of the printed range; they are equal unless all are single runs.
        design: More arguments of ``world``.
    """
    printed = true = 0.0
    for trial in range(times):
        rng = np.random.default_rng(trial)
        truths = rng.normal(0, spread, settings)
        resampled, index = world(rng, truths, seeds, resamples=100, **design)
        counts = np.bincount(index)
        means = np.bincount(index, resampled.values) / counts
        best = np.argsort(-means)[:20]
        kept = np.isin(index, best)
        part = Resampled(resampled.values[kept], resampled.draws[:, kept], EXAMPLES, EXAMPLES)
        tests = PairwiseTests(part, np.unique(index[kept], return_inverse=True)[1])
        printed += setting_selection_bias(tests, means, counts, higher_is_better=True)[end]
        true += means[best[0]] - truths[best[0]]
    if spread == 0 and np.ndim(seeds) == 0:
        variance = OF_SETTING**2 + (OF_RUN**2 + design.get("seed_sd", OF_SEED) ** 2) / seeds
        true = times * np.sqrt(variance) * expected_maximum(settings)
    return printed / true


def expected_maximum(count):
    """Return the expected maximum of ``count`` standard normal numbers."""
    x = np.linspace(-9, 9, 20001)
    return np.trapezoid(x * count * norm.cdf(x) ** (count - 1) * norm.pdf(x), x)


def slice_error_rate(times, settings):
    """Return how often any slice differs significantly between the best two of equal settings with 3 seeds each.

    Two settings are compared by class, length and overlap; of more, the best two by class and a column of 4 topics.
    """
    findings = 0
    for trial in range(times):
        rng = np.random.default_rng(trial)
        answers, _ = simulate(rng, settings, 3, 600, seed_sd=0.05)
        runs = [answers[3 * k : 3 * k + 3] for k in range(settings)]
        if settings == 2:
            sentences = [["a" * rng.integers(1, 30), "b" * rng.integers(1, 30)] for _ in range(600)]
            result = slice_differences(*runs, ["0", "1"], sentences)
        else:
            means = [np.mean([(run.predicted == run.gold).mean() for run in one]) for one in runs]
            best, second = (runs[k] for k in np.argsort(means)[:-3:-1])
            topics, choices = {"topic": rng.integers(0, 4, 600).tolist()}, settings * (settings - 1) // 2
            result = slice_differences(best, second, ["0", "1"], None, columns=topics, choices=choices)
        findings += any(one.is_significant for one in result)
    return findings / times


def unequal_evaluations_error(times, seeds, evaluations, is_corrected=True, of_evaluation=0.257):
    """Return how often equal settings differ significantly if their runs have unequal numbers of evaluations.

    Each run keeps the best of its evaluations.

    Args:
        times: Replications.
        seeds: Seeds of each setting.
        evaluations: Numbers of evaluations of the two settings.
        is_corrected: Whether the comparison is corrected for it.
        of_evaluation: Standard deviation of an evaluation's own noise; 0.257 points correspond to neighbouring
            evaluations that disagree on 5.7% of the examples.
    """
    findings = 0
    for trial in range(times):
        rng = np.random.default_rng(trial)
        resampled, index = world(rng, [0, 0], seeds)
        # the noise of the run's examples comes from its evaluations
        values = resampled.values - 0
        curves = []
        for run, setting in enumerate(index):
            curve = values[run] + rng.normal(0, of_evaluation, evaluations[setting])
            curves.append(curve)
            values[run] = curve.max()
        resampled = Resampled(values, resampled.draws + (values - resampled.values), EXAMPLES, EXAMPLES)
        counts = [EvaluationCounts(tuple(tuple(curves[i]) for i in np.flatnonzero(index == k))) for k in (0, 1)]
        tests = PairwiseTests(resampled, index)
        if is_corrected:
            tests = PairwiseTests(resampled, index, False, choice_corrections(counts, tests.run_variance, True))
        findings += bool(tests.p_adjusted[0, 1] <= ALPHA)
    return findings / times


def coverage_for_other_seeds(times, usual_seeds=3):
    """Return how often the interval for other seeds of two single runs contains the true difference."""
    covered = 0
    for trial in range(times):
        resampled, index = world(np.random.default_rng(trial), np.zeros(6), [1, 1, *[usual_seeds] * 4])
        tests = PairwiseTests(resampled, index)
        (other,) = tests.difference(0, 1).other_seeds
        covered += other.low <= 0 <= other.high
    return covered / times


def main():
    """Print a table with one row per statement."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{times} replications; one standard error of a share s is sqrt(s (1 - s) / {times})")
    for name, function in ROWS.items():
        print(f"{name:75s} {function(times):.3f}", flush=True)


_UNLIKE = {"seed_sd": np.r_[OF_SEED, np.full(3, np.sqrt(1.1**2 - OF_RUN**2)), np.full(6, OF_SEED)]}
_VERY_UNLIKE = {"seed_sd": np.r_[OF_SEED, np.full(3, np.sqrt(2.7**2 - OF_RUN**2)), np.full(6, OF_SEED)]}
ROWS = {
    **{
        f"any of the intervals misses: {k} equal settings, {s} seeds": partial(error_rate, settings=k, seeds=s)
        for k, s in ((2, 2), (2, 3), (2, 5), (10, 3), (20, 2), (20, 3), (40, 3))
    },
    "the same with a baseline: 21 settings, 3 seeds": partial(error_rate, settings=21, seeds=3, has_baseline=True),
    "the same: 10 settings, 3 seeds, three settings vary 2.75 times as much": partial(
        error_rate, settings=10, seeds=3, **_UNLIKE
    ),
    "the same: 10 settings, 3 seeds, three settings vary 6.75 times as much": partial(
        error_rate, settings=10, seeds=3, **_VERY_UNLIKE
    ),
    "found: 2 settings, 2 seeds, 1 point": partial(power, settings=2, seeds=2, gain=1.0),
    "found: 2 settings, 3 seeds, 1 point": partial(power, settings=2, seeds=3, gain=1.0),
    "found: 20 settings, 3 seeds, the best better by 1.5 points": partial(power, settings=20, seeds=3, gain=1.5),
    "power with the planned seeds, gains of 0 to 1.5 points, 3 seeds": lambda n: power_of_plans(n, 3)[0],
    "share of unfound differences with a planned number of seeds": lambda n: power_of_plans(n, 3, 1)[1],
    **{
        f"selection bias, printed / true: {k} settings, {s} seeds": partial(selection_bias_ratio, settings=k, seeds=s)
        for k in (2, 5, 10, 20, 50, 200)
        for s in (3, 5)
    },
    **{
        f"selection bias, lower end / true: {k} single runs": partial(selection_bias_ratio, settings=k, seeds=1)
        for k in (2, 5, 10, 20, 50, 200)
    },
    **{
        f"selection bias, upper end / true: {k} single runs, seeds vary by 0.7 points": partial(
            selection_bias_ratio, settings=k, seeds=1, end=1, seed_sd=MUCH
        )
        for k in (2, 5, 10, 20, 50, 200)
    },
    "selection bias, printed / true: 20 settings of unequal truth, 3 seeds": partial(
        selection_bias_ratio, settings=20, seeds=3, spread=0.5
    ),
    "selection bias, printed / true: 20 settings, 5 of them with 3 seeds, others 1": partial(
        selection_bias_ratio, settings=20, seeds=[3] * 5 + [1] * 15
    ),
    **{
        f"false findings: groups of {size} pairs share a sentence, 3 seeds": partial(grouped_error_rate, size=size)
        for size in (4, 10)
    },
    **{
        f"the same, drawn one by one: groups of {size}": partial(grouped_error_rate, size=size, is_grouped=False)
        for size in (4, 10)
    },
    "false findings: 3 against 30 evaluations, 5 seeds, not corrected": partial(
        unequal_evaluations_error, seeds=5, evaluations=(3, 30), is_corrected=False
    ),
    **{
        f"false findings: {a} against {b} evaluations, {s} seeds": partial(
            unequal_evaluations_error, seeds=s, evaluations=(a, b)
        )
        for a, b, s in ((3, 30, 5), (3, 10, 5), (1, 10, 3))
    },
    "any slice differs: 2 equal settings, 3 seeds": partial(slice_error_rate, settings=2),
    "any slice differs: the best two of 5 equal settings, 3 seeds": partial(slice_error_rate, settings=5),
    "interval for other seeds of two single runs contains the truth": coverage_for_other_seeds,
}

if __name__ == "__main__":
    main()
