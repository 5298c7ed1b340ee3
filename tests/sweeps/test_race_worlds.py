"""Simulated races whose truth is known: how often is a setting dropped wrongly, and how many runs are saved?

``python tests/support/race_worlds.py`` prints all figures.
"""

import numpy as np
import pytest
from race_worlds import gain, grid_power, simulate_races, unlike
from scipy.stats import binom

from afqmc.sweeps.race import RaceConfig

ALPHA, TIMES = 0.05, 1000


def largest(share, times):
    """Return the largest share that chance gives in 999 of 1000 cases if the true one is ``share``."""
    return binom.ppf(0.999, times, share) / times


@pytest.mark.parametrize("settings", [2, 5])
def test_equal_settings_are_rarely_dropped(settings):
    """At most 5% of races between equal settings drop any of them."""
    assert simulate_races(100, RaceConfig(3, 6), np.zeros(settings)).any_dropped <= largest(ALPHA, 100)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [2, 5, 20])
@pytest.mark.parametrize("config", [RaceConfig(2, 10), RaceConfig(3, 5), RaceConfig(3, 10)], ids=str)
def test_equal_settings_are_rarely_dropped_slow(settings, config):
    """The same, and a comparison at the end rarely finds a difference either, although it ignores the looks."""
    outcome = simulate_races(TIMES, config, np.zeros(settings))
    assert outcome.any_dropped <= largest(ALPHA, TIMES)
    assert outcome.compare_finds <= largest(ALPHA, TIMES)


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "share"), [(2.75, 0.05), (6.75, 0.08)])
def test_unlike_settings_are_rarely_dropped(ratio, share):
    """Three of ten equal settings whose seeds vary much more: errors stay rare, though they may be above 5%."""
    assert simulate_races(TIMES, RaceConfig(3, 10), np.zeros(10), seed_sd=unlike(ratio)).any_dropped <= largest(
        share, TIMES
    )


def test_race_keeps_best_and_saves_runs():
    """A race drops nearly all worse settings, never the best one in these races, and takes less than the grid."""
    outcome = simulate_races(60, RaceConfig(3, 10), gain(5, 1.5))
    assert outcome.best_dropped == 0
    assert outcome.found > 0.9
    assert outcome.runs < 0.7 * 50


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "seeds", "share"), [(2, 7, 0.6), (5, 8, 0.65), (20, 9, 0.75)])
def test_race_saves_runs_at_equal_power(settings, seeds, share):
    """A race of 3 to 10 seeds finds as much as a grid with these seeds, and takes this share of its runs at most."""
    truths = gain(settings, 1.5)
    outcome = simulate_races(TIMES, RaceConfig(3, 10), truths)
    assert outcome.found >= grid_power(TIMES, truths, seeds) - 0.01
    assert outcome.runs <= share * settings * seeds
