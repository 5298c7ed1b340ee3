"""Decide which runs of a race come next, and which settings can no longer be the best.

Every setting gets the seeds 1, 2, ... As soon as two settings have n seeds each, their first n seeds are compared. A
setting that is significantly worse than another one is dropped and gets no more seeds, so that the next seeds go to the
comparisons that are not settled.

Looking at the results after each seed would find differences by chance more and more often. Therefore each look has a
stricter level (alpha spending, Lan and DeMets 1983). Until seed n of N, alpha * (n / N)**2 may be spent (Kim and DeMets
1987). This is divided by the number of pairs of settings (Bonferroni). So all drops of a race are right with a
probability of at least 1 - alpha, and the settings that are left contain the best one.

The levels are those of a sum of n independent runs. In fact all seeds of a setting are evaluated on the same dev pairs,
which makes the looks more alike, and crossing a level less likely than calculated (Slepian 1962). The levels are
applied to p-values of Student's t (Jennison and Turnbull 2000, "Group Sequential Methods").
tests/sweeps/test_race_worlds.py checks the error by simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Optional

from afqmc.utils.errors import InputError

_GRID = 401  # points of numerical integration
_RANGE = 8.0  # standard deviations

# (setting, seed) of each run that has been started: True if it is completed, False if it has failed, None if unfinished
Runs = Mapping[tuple[int, int], Optional[bool]]


@dataclass(frozen=True)
class RaceConfig:
    """The fields of ``hydra/sweeper=race`` except for its settings.

    Attributes:
        min_seeds: Seeds that every setting gets before the first look.
        max_seeds: Seeds that a setting gets at most.
        max_runs: Number of runs after which the race ends; None for no limit.
        alpha: Probability that any setting is dropped wrongly.
    """

    min_seeds: int = 3
    max_seeds: int = 10
    max_runs: Optional[int] = None
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: If one is invalid; names the key, its value and what is allowed.
        """
        for key, least in (("min_seeds", 2), ("max_seeds", self.min_seeds), ("max_runs", 1)):
            value = getattr(self, key)
            if key == "max_runs" and value is None:
                continue
            if type(value) is not int or value < least:
                smallest = f"min_seeds={least}" if key == "max_seeds" else least
                raise InputError(f"hydra.sweeper.{key}={value}: must be a whole number >= {smallest}")
        if not isinstance(self.alpha, float) or not 0 < self.alpha < 1:
            raise InputError(f"hydra.sweeper.alpha={self.alpha}: must be > 0 and < 1")

    def levels(self, settings: int) -> dict[int, float]:
        """Return the level of the p-value of each pair of settings, by their number of seeds."""
        alpha = self.alpha / max(settings * (settings - 1) // 2, 1)
        looks = range(self.min_seeds, self.max_seeds + 1)
        fractions = tuple(seeds / self.max_seeds for seeds in looks)
        return dict(zip(looks, nominal_levels(tuple(alpha * part**2 for part in fractions), fractions), strict=True))


class Ending(Enum):
    """Why a race has ended."""

    one_left = "one_left"
    max_seeds = "max_seeds"
    max_runs = "max_runs"
    failed = "failed"


@dataclass(frozen=True)
class Look:
    """A comparison of two settings by their first ``seeds`` seeds, which is significant if p is at most ``level``."""

    setting: int
    other: int
    seeds: int
    p: float
    level: float


@dataclass(frozen=True)
class RaceState:
    """The conclusions from the runs so far.

    Attributes:
        seeds: Number of first seeds of each setting that are completed without a gap.
        dropped: By setting: the look at which it was significantly worse.
        failed: By setting: its first seed that has failed, after which it gets no more.
        last: By setting that is neither dropped nor the best one: the last look at both, if there was any.
        best: The best of the settings that were not dropped, at the last look; None before the first.
        batch: (setting, seed) of the next runs, the least settled comparison first; empty at the end.
        ending: Why the race has ended, or None.
    """

    seeds: list[int]
    dropped: dict[int, Look]
    failed: dict[int, int]
    last: dict[int, Look]
    best: int | None
    batch: list[tuple[int, int]]
    ending: Ending | None


# Compare settings by their first seeds: takes the number of seeds of each setting, 0 to leave it out. Returns the
# p-values (K, K), and the means (K,), a larger one being better.
Compare = Callable[[Sequence[int]], tuple[Any, Any]]


def decide(config: RaceConfig, settings: int, runs: Runs, compare: Compare) -> RaceState:
    """Repeat all looks at the runs so far, and return what follows from them.

    It depends on nothing else, so that a race that is resumed decides as if it had not been interrupted.

    Args:
        config: Of the race.
        settings: Number of settings.
        runs: Which runs have been started, and how they ended.
        compare: Tests of the settings.
    """
    seeds = [_completed(runs, setting, config.max_seeds) for setting in range(settings)]
    failed = {k: seeds[k] + 1 for k in range(settings) if runs.get((k, seeds[k] + 1)) is False}
    dropped, last = dict[int, Look](), dict[int, Look]()
    best = None
    for look, level in config.levels(settings).items():
        ready = [k for k in range(settings) if seeds[k] >= look and k not in dropped]
        if len(ready) < 2:
            break
        p, means = compare([min(look, count) for count in seeds])
        ready.sort(key=lambda k: -means[k])
        best = ready[0]
        for index, k in enumerate(ready[1:], 1):
            looks = [Look(k, other, look, float(p[other][k]), level) for other in ready[:index]]
            last[k] = looks[0]
            if significant := [one for one in looks if one.p <= level and means[one.other] > means[k]]:
                dropped[k] = significant[0]
    last = {k: one for k, one in last.items() if k not in dropped and k != best and one.other == best}
    racing = [k for k in range(settings) if k not in dropped and k not in failed]
    if len(racing) < 2:
        ending = Ending.failed if failed.keys() - dropped.keys() else Ending.one_left
        return RaceState(seeds, dropped, failed, last, best, [], ending)
    # the best setting first, then those closest to it
    racing.sort(key=lambda k: (k != best, -last[k].p if k in last else 0.0, k))
    following = max(min(seeds[k] for k in racing) + 1, config.min_seeds)
    if following > config.max_seeds:
        return RaceState(seeds, dropped, failed, last, best, [], Ending.max_seeds)
    wanted = [(k, seed) for seed in range(1, following + 1) for k in racing if runs.get((k, seed)) is None]
    batch = _within_budget(config, runs, wanted)
    if len(batch) == 1 and max(seeds[k] for k in racing) < following:
        batch = []  # there would be nothing to compare this run with
    return RaceState(seeds, dropped, failed, last, best, batch, None if batch else Ending.max_runs)


def _completed(runs: Runs, setting: int, max_seeds: int) -> int:
    """Return how many of the first seeds of a setting are completed without a gap."""
    return next((seed - 1 for seed in range(1, max_seeds + 1) if not runs.get((setting, seed))), max_seeds)


def _within_budget(config: RaceConfig, runs: Runs, wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if config.max_runs is None:
        return wanted
    new = [run for run in wanted if run not in runs][: max(config.max_runs - len(runs), 0)]
    return [run for run in wanted if run in runs or run in new]


@cache
def nominal_levels(spent: tuple[float, ...], fractions: tuple[float, ...]) -> list[float]:
    """Return the two-sided level of each look, so that ``spent`` is the probability of any finding up to it.

    Each side of a test gets half. The density of the test statistic, a Brownian motion that has not yet crossed a
    boundary, is integrated numerically from look to look (Armitage, McPherson and Rowe 1969).

    Args:
        spent: Probability of a false finding up to each look, increasing.
        fractions: Information at each look, as a fraction of that of the last one, increasing.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import norm

    levels: list[float] = []
    points, weights, before, spent_before = np.zeros(1), np.ones(1), 0.0, 0.0  # the motion starts at 0
    simpson = np.r_[1, np.tile([4, 2], (_GRID - 3) // 2), 4, 1] / 3
    for total, fraction in zip(spent, fractions, strict=True):
        step = np.sqrt(fraction - before)
        target = (total - spent_before) / 2

        def excess(boundary: float, step: float = step, target: float = target) -> float:
            return float(weights @ norm.sf((boundary - points) / step)) - target  # noqa: B023

        scale = np.sqrt(fraction)
        boundary = brentq(excess, 0.0, 40 * scale, xtol=1e-12)
        levels.append(float(2 * norm.sf(boundary / scale)))
        grid = np.linspace(-_RANGE * scale, boundary, _GRID)
        density = norm.pdf((grid[:, None] - points) / step) @ weights / step
        points, weights = grid, density * simpson * (grid[1] - grid[0])
        before, spent_before = fraction, total
    return levels
