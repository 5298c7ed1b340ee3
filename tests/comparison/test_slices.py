"""Tests of differences on slices of the pairs."""

import numpy as np
import pytest
from simulated import answers_of, simulate
from worlds import slice_error_rate

from afqmc.comparison.slices import slice_differences


def by_name(differences):
    return {str(one.name): one for one in differences}


def test_slices_partition_the_pairs():
    """The slices by class, length and overlap contain each pair once, and their names have the borders."""
    answers, _ = simulate(np.random.default_rng(0), 2, 1, 600)
    sentences = [["你好" * (1 + index % 3), "你好吗" if index % 2 else "再见"] for index in range(600)]
    result = by_name(slice_differences(answers[:1], answers[1:], ["0", "1"], sentences))
    sizes = {
        kind: [one.pairs for name, one in result.items() if kind in name] for kind in ("label", "characters", "overlap")
    }
    assert {kind: sum(counts) for kind, counts in sizes.items()} == dict.fromkeys(sizes, 600)
    assert "5 to 6 characters" in result
    assert "character overlap 0.00 to 0.00" in result


def test_difference_on_one_slice_is_found():
    """A setting that is better only on class 1 differs on that slice, and not on the other one."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 1000)

    def runs(right_on_1):
        predictions = [
            np.where(rng.random(1000) < np.where(gold == 1, right_on_1, 0.8), gold, 1 - gold) for _ in range(3)
        ]
        return [answers_of(gold, np.eye(2)[one]) for one in predictions]

    result = by_name(slice_differences(runs(0.9), runs(0.7), ["no", "yes"], None))
    assert result["label yes"].is_significant
    assert not result["label no"].is_significant


def test_slices_by_columns():
    """Numbers are cut into thirds, texts and codes are sliced by value; pairs without a value are in no slice."""
    answers, _ = simulate(np.random.default_rng(0), 2, 1, 600)
    columns = {
        "price": [None if row % 10 == 0 else f"{row / 2}" for row in range(600)],
        "year": [2023 + row % 3 for row in range(600)],
        "topic": ["loan" if row % 2 else "" for row in range(600)],
        "note": [f"number {row}" for row in range(600)],
    }
    result = by_name(slice_differences(answers[:1], answers[1:], ["0", "1"], None, columns=columns))
    assert {name: one.pairs for name, one in result.items() if "label" not in name} == {
        "price 0.5 to 99": 179,
        "price 99.5 to 199": 180,
        "price 199.5 to 299.5": 181,
        "year = 2023": 200,
        "year = 2024": 200,
        "year = 2025": 200,
        "topic = loan": 300,
    }


@pytest.mark.slow
@pytest.mark.parametrize("settings", [2, 5])
def test_slices_of_equal_settings_rarely_differ(settings):
    """In at most 5% any slice of equal settings is significant, also of the best two of five."""
    assert slice_error_rate(400, settings) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_small_slices_are_left_out():
    answers, _ = simulate(np.random.default_rng(0), 2, 1, 60)
    assert all(one.pairs >= 50 for one in slice_differences(answers[:1], answers[1:], ["0", "1"], None))
