"""Tests of where settings stand: own intervals, sets that may be the best, expected best results, costs."""

from itertools import product

import numpy as np
import pytest
from simulated import config_text, simulate, write_run, write_sweep
from worlds import world

from afqmc.comparison.builder import build
from afqmc.comparison.html.standing_plots import cost_data, standing_data, trial_data
from afqmc.comparison.pairwise import PairwiseTests
from afqmc.comparison.standing import expected_best, standings
from afqmc.results.runs import find_runs


def test_interval_of_a_mean_covers_the_truth():
    """The interval of a setting's mean contains its true metric in 95% of cases, for other examples and seeds."""
    covered = 0
    for trial in range(300):
        resampled, index = world(np.random.default_rng(trial), np.zeros(3), 3)
        covered += sum(one.low <= 0 <= one.high for one in standings(PairwiseTests(resampled, index), True))
    assert 0.93 <= covered / 900 <= 0.99


def test_best_setting_may_be_the_best():
    """The truly best setting is in the set that may be the best in at least 95% of cases; distant ones are not."""
    contained = distant = 0
    for trial in range(200):
        resampled, index = world(np.random.default_rng(trial), [0.5, 0, 0.3, -8], 3)
        result = standings(PairwiseTests(resampled, index), True)
        contained += result[0].may_be_best
        distant += result[3].may_be_best
        assert sum(one.best_share for one in result) == pytest.approx(1)
    assert contained >= 190
    assert distant == 0


def test_lower_loss_is_better():
    """For a loss, the setting with the lowest value may be the best."""
    resampled, index = world(np.random.default_rng(0), [5, 0], 3)
    assert [one.may_be_best for one in standings(PairwiseTests(resampled, index), False)] == [False, True]


@pytest.mark.parametrize("higher", [True, False])
def test_expected_best_by_enumeration(higher):
    """The formula gives the mean of the best of n over all draws with replacement."""
    values = [0.3, 0.7, 0.5, 0.7]
    pick = max if higher else min
    for n in (1, 2, 3):
        expected = np.mean([pick(draw) for draw in product(values, repeat=n)])
        assert expected_best(values, higher)[n - 1] == pytest.approx(expected)


def test_data_of_the_plots(tmp_path):
    """The plots show the compared settings with their differences from the first, trials and costs."""
    report = build(find_runs([str(write_sweep(tmp_path / "sweep", 3, 3, 300, quality=(0.8, 2.0, 0.9)))]), None, 20)
    data = standing_data(report)
    assert data["unit"] == "points"
    first, second, _ = data["settings"]
    assert first["difference"] == [0, 0, 0]
    difference = report.comparisons[0].difference
    assert second["difference"] == pytest.approx(
        [-100 * difference.value, -100 * difference.high, -100 * difference.low]
    )
    assert len(first["values"]) == 3
    assert len(trial_data(report)["best"]) == 9
    assert trial_data(report)["hours"] == pytest.approx(61 / 3600)


def test_efficient_settings(tmp_path):
    """A setting is efficient if no other one is both faster and better."""
    answers = simulate(np.random.default_rng(0), 3, 1, 300, quality=(2.0, 1.0, 0.3))[0]
    for job, (one, seconds) in enumerate(zip(answers, (90.0, 30.0, 60.0), strict=True)):
        config = config_text().replace("lr: 0.0005", f"lr: {job + 1}.0e-5")
        write_run(tmp_path / f"{job}", config, one, total_seconds=seconds)
    costs = cost_data(build(find_runs([str(tmp_path)]), "dev/accuracy", 20))
    assert {point["seconds"]: point["is_efficient"] for point in costs} == {90: True, 30: True, 60: False}
