"""Check by simulation that intervals cover the truth and that false findings are as rare as promised.

The simulated models share examples that are hard for all, for a setting, or for one seed; seeds vary beyond that.
"""

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom
from simulated import simulate

from afqmc.comparison.bootstrap import Resampled, resample
from afqmc.comparison.pairwise import ALPHA, PairwiseTests
from afqmc.results.resampled_metrics import resampled_metric

DESIGNS = {
    "two seeds": {"seeds": 2, "examples": 400},
    "three seeds": {"seeds": 3, "examples": 400},
    "five seeds": {"seeds": 5, "examples": 400},
    "seeds that differ by their examples only": {"seeds": 5, "examples": 400, "seed_sd": 0.0},
    "seeds that differ much": {"seeds": 3, "examples": 400, "seed_sd": 0.4, "interaction_sd": 0.1},
    "a large dev set": {"seeds": 3, "examples": 1000},
    "a small dev set": {"seeds": 5, "examples": 100, "seed_sd": 0.05, "interaction_sd": 1.0},
    "one run each": {"seeds": 1, "examples": 400, "seed_sd": 0.0, "interaction_sd": 0.0},
}
RESAMPLES = 300


def families(times, settings=2, name="accuracy", **design):
    """Yield the resampled metrics and settings of simulated sweeps."""
    for number in range(times):
        answers, setting = simulate(np.random.default_rng(number), settings, **design)
        yield resample(name, answers, RESAMPLES, number), setting


def share_covered(times, truth=0.0, **design):
    """Return the share of intervals that contain the true difference."""
    result = [PairwiseTests(*family).difference(0, 1) for family in families(times, **design)]
    return np.mean([one.low <= truth <= one.high for one in result])


def is_near(share, expected, times):
    """Return whether a share is within the 99.9% interval around the expected one, plus a margin."""
    low, high = binom.interval(0.999, times, expected)
    return low / times - 0.01 <= share <= high / times + 0.02  # intervals may be slightly too wide


@cache
def true_difference(name, quality):
    """Compute the true difference of the metric from many examples and seeds."""
    answers, setting = simulate(np.random.default_rng(99), 2, 40, 40_000, quality)
    result = resampled_metric(name, answers, np.ones((40_000, 1), dtype=np.float32))[:, 0].reshape(2, 40).mean(axis=1)
    assert setting[39:41] == [0, 1]
    return result[0] - result[1]


def test_intervals_cover_zero_under_the_null():
    """Intervals of equal settings contain zero 19 times in 20."""
    assert is_near(share_covered(150, seeds=3, examples=200), 0.95, 150)


def test_five_equal_settings_rarely_differ():
    """Among five equal settings, the share of sweeps with a significant difference is at most 5%."""
    result = [PairwiseTests(*family).p_adjusted for family in families(60, settings=5, seeds=3, examples=150)]
    assert np.mean([(p <= ALPHA).any() for p in result]) <= binom.ppf(0.999, 60, ALPHA) / 60


@pytest.mark.parametrize(("settings", "seeds"), [(12, 2), (20, 3), (5, 2)])
@pytest.mark.parametrize("of_examples", [0.1, 0.3, 0.7])  # standard deviation over settings; over seeds it is 1
def test_seeds_agreeing_by_chance_are_not_significant(of_examples, settings, seeds):
    """With many settings, the smallest of their variances is close to zero; this does not cause false findings."""
    times, wrong, number = 200, 0, np.repeat(np.arange(settings), seeds)
    for trial in range(times):
        rng = np.random.default_rng(trial)
        values = rng.normal(0, 1, settings * seeds) + rng.normal(0, of_examples, settings)[number]
        draws = values + rng.normal(0, of_examples, (100, settings))[:, number]
        wrong += bool((PairwiseTests(Resampled(values, draws, 4000, 4000), number).p_adjusted <= ALPHA).any())
    assert wrong <= binom.ppf(0.999, times, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "roc_auc"])
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_zero_in_every_design(design, name):
    """Intervals of equal settings contain zero 19 times in 20, in every design."""
    assert is_near(share_covered(400, name=name, **DESIGNS[design]), 0.95, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "roc_auc", "loss"])
def test_intervals_cover_a_true_difference(name):
    """Intervals contain the true difference 19 times in 20."""
    quality = (1.3, 1.0)
    design = {"quality": quality, "seeds": 4, "examples": 500}
    truth = true_difference(name, quality)
    assert is_near(share_covered(600, truth, name=name, **design), 0.95, 600)


@pytest.mark.slow
def test_hierarchical_bootstrap_is_miscalibrated():
    """The plain hierarchical bootstrap is too narrow or too wide, which is why it is not used."""
    shares = {}
    for design in ("seeds that differ much", "seeds that differ by their examples only"):
        covered = []
        for number, (result, setting) in enumerate(families(600, **DESIGNS[design])):
            rng, seeds = np.random.default_rng(number), DESIGNS[design]["seeds"]
            one, other = (result.draws[:, np.equal(setting, k)] for k in (0, 1))
            means = [
                np.take_along_axis(draws, rng.integers(0, seeds, draws.shape), axis=1).mean(axis=1)
                for draws in (one, other)
            ]
            low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
            covered.append(low <= 0 <= high)
        shares[design] = np.mean(covered)
    assert shares["seeds that differ much"] < 0.87
    assert shares["seeds that differ by their examples only"] > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("settings", [3, 8])
def test_equal_settings_rarely_differ(settings):
    """Among equal settings, the share of sweeps with a significant difference is at most 5%."""
    result = [PairwiseTests(*family).p_adjusted for family in families(600, settings=settings, seeds=3, examples=300)]
    share = np.mean([(p <= ALPHA).any() for p in result])
    assert 0 < share <= binom.ppf(0.999, 600, ALPHA) / 600


@pytest.mark.slow
def test_detectable_difference_has_80_percent_power():
    """The detectable difference is significant 4 times in 5."""
    quality = (1.35, 1.0)
    truth = true_difference("accuracy", quality)
    design = {"quality": quality, "examples": 600}
    estimated = [PairwiseTests(*family).difference(0, 1) for family in families(200, seeds=3, **design)]
    estimate = np.median([one.detectable for one in estimated])
    assert estimate > truth  # three seeds are too few
    needed = next(n for n in range(4, 30) if _detectable(n, design) <= truth)
    result = [PairwiseTests(*family).difference(0, 1).significant for family in families(400, seeds=needed, **design)]
    assert 0.68 < np.mean(result) < 0.92


def _detectable(seeds, design):
    return np.median(
        [PairwiseTests(*family).difference(0, 1).detectable for family in families(60, seeds=seeds, **design)]
    )
