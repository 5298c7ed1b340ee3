"""Simulate comparisons whose truth is known: how often is a printed statement wrong?

``python tests/support/worlds.py`` prints all figures.
"""

import numpy as np
import pytest
from scipy.stats import binom
from worlds import (
    MUCH,
    OF_SEED,
    coverage_for_other_seeds,
    error_rate,
    grouped_error_rate,
    power,
    power_of_plans,
    selection_bias_ratio,
    unequal_evaluations_error,
)

from afqmc.comparison.pairwise import ALPHA
from afqmc.comparison.selection import selection_optimism

TIMES = 1000  # of the slow simulations


def largest(share, times):
    """Return the largest share that chance gives in 999 of 1000 cases if the true one is ``share``."""
    return binom.ppf(0.999, times, share) / times


@pytest.mark.parametrize(("settings", "seeds"), [(2, 2), (2, 3), (20, 3)])
def test_intervals_rarely_miss(settings, seeds):
    """Equal settings: all intervals contain 0 in 95% of comparisons, and so nothing is found."""
    assert error_rate(150, settings, seeds) <= largest(ALPHA, 150)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "seeds"), [(2, 2), (2, 3), (2, 5), (10, 2), (10, 3), (20, 2), (20, 3), (40, 3)])
def test_intervals_rarely_miss_slow(settings, seeds):
    """The same for 2 to 40 settings, with at most 6% that miss."""
    assert error_rate(TIMES, settings, seeds) <= largest(ALPHA, TIMES)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [2.75, 6.75])
def test_unlike_settings_rarely_differ(ratio):
    """Three of ten settings whose seeds vary much more: findings stay rare, though above 5% with three seeds."""
    seed_sd = np.full(10, 0.26)
    seed_sd[1:4] = np.sqrt((0.4 * ratio) ** 2 - 0.3**2)
    assert error_rate(TIMES, 10, 3, seed_sd=seed_sd) <= largest(0.07, TIMES)


@pytest.mark.slow
def test_power_of_sweeps():
    """The best of 20 settings with 3 seeds is found to be better than another one in a third of the cases."""
    assert power(TIMES, 20, 3, 1.5) > 0.33


def test_plan_keeps_its_promise():
    """Differences of 0 to 1.5 points are found 7 to 9 times in 10 with the number of seeds that a plan names."""
    found, named = power_of_plans(300, 3)
    assert 0.68 < found < 0.9
    assert named > 0.1


@pytest.mark.parametrize(
    ("settings", "seeds", "spread"),
    [(2, 3, 0), (2, 5, 0), (5, 3, 0), (20, 3, 0), (20, 3, 0.5), (60, 3, 0), (20, [3] * 5 + [1] * 15, 0)],
)
def test_selection_bias_is_right(settings, seeds, spread):
    """The printed selection bias is 0.8 to 1.2 times the true one, on average."""
    assert 0.75 < selection_bias_ratio(200, settings, seeds, spread) < 1.25


@pytest.mark.parametrize(("end", "seed_sd"), [(0, OF_SEED), (1, MUCH)])
def test_selection_bias_of_single_runs(end, seed_sd):
    """The lower end of the printed range is right if seeds vary little, the upper one if they vary much."""
    assert 0.75 < selection_bias_ratio(200, 20, 1, end=end, seed_sd=seed_sd) < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("settings", [2, 5, 10, 50, 200])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_selection_bias_slow(settings, seeds):
    """The printed selection bias is about the true one, for few and many settings and seeds."""
    assert 0.8 < selection_bias_ratio(400, settings, seeds) < 1.2


@pytest.mark.parametrize("size", [4, 10])
def test_groups_rarely_differ(size):
    """Equal settings rarely differ if pairs share a sentence and are drawn in groups."""
    assert grouped_error_rate(100, size) <= largest(ALPHA, 100)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 10])
def test_groups_rarely_differ_slow(size):
    """The same with more replications; drawn one by one, they differ too often."""
    assert grouped_error_rate(TIMES, size) <= largest(ALPHA, TIMES)
    assert grouped_error_rate(TIMES, size, is_grouped=False) > 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("evaluations", "seeds"), [((3, 30), 5), ((3, 10), 5), ((3, 30), 3)])
def test_more_evaluations_give_no_advantage(evaluations, seeds):
    """Equal settings of 3 and 30 evaluations rarely differ; without the correction they do more often."""
    assert unequal_evaluations_error(TIMES, seeds, evaluations) <= largest(ALPHA, TIMES)
    if evaluations == (3, 30):
        assert unequal_evaluations_error(TIMES, seeds, evaluations, is_corrected=False) > (0.08 if seeds == 5 else 0.06)


def test_interval_for_other_seeds():
    """The interval of two single runs for other seeds contains the true difference."""
    assert coverage_for_other_seeds(200) >= 0.93


def test_selection_optimism_of_equal_values():
    """Values that differ by noise alone: the optimism is that of the largest of K normal numbers."""
    values = np.random.default_rng(1).normal(0, 1, (200, 20))
    estimates = [selection_optimism(row, 1.0) for row in values]
    assert np.mean(estimates) == pytest.approx(1.867, rel=0.08)  # expected maximum of 20 standard normal numbers


def test_selection_optimism_of_distant_values():
    """A value that is far ahead is not chosen by luck."""
    assert selection_optimism(np.array([0.0, 0.1, 50.0]), 1.0) == pytest.approx(0, abs=0.05)
    assert selection_optimism(np.array([1.0]), 1.0) == 0
