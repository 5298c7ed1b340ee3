"""Simulated races (hydra/sweeper=race) in the worlds of worlds.py, whose truth is known.

python tests/support/race_worlds.py [REPLICATIONS]    prints errors, and the runs of a race and of the full grid
"""

import sys
from dataclasses import dataclass
from functools import cache

import numpy as np
from worlds import OF_RUN, OF_SEED, world

from afqmc.comparison.bootstrap import Resampled
from afqmc.comparison.pairwise import ALPHA, PairwiseTests
from afqmc.sweeps.race import RaceConfig, decide


@dataclass
class Outcome:
    """Shares and means over simulated races; setting 0 is the best one."""

    any_dropped: float  # share of races that dropped any setting
    best_dropped: float  # share that dropped the best one
    found: float  # share of the other settings that were dropped
    runs: float  # mean number of runs
    compare_finds: float  # share in which a comparison with fixed numbers of seeds finds any difference at the end


def simulate_races(times, config, truths, **design):
    """Run races among settings with these true metrics, in points; ``design`` as of ``world``."""
    count = len(truths)
    outcomes = []
    for trial in range(times):
        resampled, index = world(np.random.default_rng(trial), truths, config.max_seeds, **design)

        def tests(seeds, resampled=resampled, index=index):
            columns = np.concatenate([np.flatnonzero(index == k)[:n] for k, n in enumerate(seeds)])
            part = Resampled(
                resampled.values[columns], resampled.draws[:, columns], resampled.examples, resampled.units
            )
            return PairwiseTests(part, index[columns])

        @cache
        def compare(seeds, tests=tests):
            result = tests(seeds)
            return result.p, result.means

        runs, state = {}, None
        while state is None or state.ending is None:
            state = decide(config, count, runs, lambda seeds, compare=compare: compare(tuple(seeds)))
            runs |= dict.fromkeys(state.batch, True)
        finds = bool((tests(state.seeds).p_adjusted <= ALPHA).any())
        dropped = np.isin(np.arange(count), [*state.dropped])
        outcomes.append([dropped.any(), dropped[0], dropped[1:].mean(), len(runs), finds])
    return Outcome(*np.mean(outcomes, axis=0).tolist())


def grid_power(times, truths, seeds, **design):
    """Return the share of settings that a comparison of the full grid finds to be worse than the best one."""
    found = 0.0
    for trial in range(times):
        tests = PairwiseTests(*world(np.random.default_rng(trial), truths, seeds, **design))
        found += ((tests.p_adjusted[0, 1:] <= ALPHA) & (tests.means[0] > tests.means[1:])).mean()
    return found / times


def gain(settings, points):
    """Return the truths of settings of which the first one is better than the others."""
    return np.r_[points, np.zeros(settings - 1)]


def unlike(ratio):
    """Return what the seeds of 10 settings vary beyond the examples if three settings vary ``ratio`` times as much."""
    seed_sd = np.full(10, OF_SEED)
    seed_sd[1:4] = np.sqrt(ratio**2 * (OF_RUN**2 + OF_SEED**2) - OF_RUN**2)
    return seed_sd


def main():
    """Print a table of equal settings, and one of races against grids."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{times} replications; one standard error of a share s is sqrt(s (1 - s) / {times})")
    print("equal settings: seeds, drops any, comparison at the end finds any, runs")
    for settings in (2, 5, 20):
        for least, most in ((2, 10), (3, 5), (3, 10)):
            config = RaceConfig(least, most)
            one = simulate_races(times, config, np.zeros(settings))
            row = f"{one.any_dropped:.3f}  {one.compare_finds:.3f}  {one.runs:6.1f} of {settings * most}"
            print(f"{settings:2d} settings, {least} to {most} seeds: {row}", flush=True)
    for ratio in (2.75, 6.75):
        for least in (2, 3):
            one = simulate_races(times, RaceConfig(least, 10), np.zeros(10), seed_sd=unlike(ratio))
            row = f"{one.any_dropped:.3f}  {one.compare_finds:.3f}  {one.runs:6.1f} of 100"
            print(f"10 settings, {least} to 10 seeds, three vary {ratio} times as much: {row}", flush=True)
    for settings in (2, 5, 20):
        for points in (1.0, 1.5):
            truths = gain(settings, points)
            print(f"{settings} settings, the best better by {points} points")
            for seeds in (3, 4, 5, 6, 7, 8, 9, 10):
                print(
                    f"    grid of {seeds:2d} seeds: {grid_power(times, truths, seeds):.3f}  {settings * seeds} runs",
                    flush=True,
                )
            for most in (5, 6, 7, 8, 10, 12):
                one = simulate_races(times, RaceConfig(3, most), truths)
                row = f"{one.found:.3f}  {one.runs:.1f} runs; drops the best {one.best_dropped:.3f}"
                print(f"    race to {most:2d} seeds: {row}", flush=True)


if __name__ == "__main__":
    main()
