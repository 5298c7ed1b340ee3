"""Test the promise of abstaining by simulation, and its limits."""

import numpy as np
import pytest
from scipy.stats import binomtest

from afqmc.evaluation.abstention import CONFIDENCE, choose_cut
from afqmc.utils.errors import InputError

RATE = 0.1
REPLICATIONS, PAIRS = 1000, 400
GRID = np.linspace(0, 10, 20_001)  # log-odds of the likeliest label are uniform on 0 to 10

# error rates by log-odds
MODELS = {
    "informative": lambda odds: 0.5 / (1 + np.exp(odds - 2)),
    "just above the rate": lambda odds: np.full_like(odds, RATE + 1e-6),
    "most certain pairs are wrong": lambda odds: np.where(odds > 7, 0.13, 0.085),
    "two levels": lambda odds: np.where(odds > 4, 0.09, 0.3),
}


def draw(model, rng, pairs=PAIRS):
    """Logits (N, 2) and labels of pairs of which a model predicts some wrongly."""
    odds = rng.uniform(0, 10, pairs)
    predicted = rng.integers(2, size=pairs)
    wrong = rng.random(pairs) < MODELS[model](odds)
    logits = np.zeros((pairs, 2))
    logits[np.arange(pairs), predicted] = odds
    return logits, np.where(wrong, 1 - predicted, predicted)


@pytest.mark.parametrize("model", MODELS)
def test_promise_holds(model):
    """In 1000 draws of dev, the true error rate above the cut exceeds the promised one in at most 5%."""
    rng = np.random.default_rng(0)
    true_rates = np.cumsum(MODELS[model](GRID)[::-1]) / np.arange(1, len(GRID) + 1)  # above each cut, highest first
    broken = chosen = 0
    for _ in range(REPLICATIONS):
        try:
            cut = choose_cut(*draw(model, rng), RATE).cut
        except InputError:
            continue
        chosen += 1
        above = (cut < GRID).sum()
        broken += true_rates[above - 1] > RATE
    assert broken <= (1 - CONFIDENCE) * REPLICATIONS or (
        binomtest(int(broken), REPLICATIONS, 1 - CONFIDENCE, alternative="greater").pvalue > 0.01
    )
    if model == "informative":
        assert chosen == REPLICATIONS


def test_share_of_predictions():
    """With much data, nearly all pairs are predicted for which the rate allows it."""
    rng = np.random.default_rng(1)
    abstention = choose_cut(*draw("two levels", rng, 20_000), 0.12)
    # 0.09 above log-odds 4 (60% of the pairs), 0.3 below: 70% of the pairs can be predicted
    assert 0.6 <= abstention.predicted / abstention.pairs <= 0.7
    assert abstention.errors / abstention.predicted < 0.12
    logits, _ = draw("two levels", rng, 1000)
    assert 1 - abstention.abstains(logits).mean() == pytest.approx(abstention.predicted / 20_000, abs=0.05)


def test_nothing_is_left_out():
    """If the rate allows it, all pairs are predicted, whatever their log-odds."""
    logits, labels = draw("informative", np.random.default_rng(2), 1000)
    abstention = choose_cut(logits, labels, 0.4)
    assert (abstention.cut, abstention.predicted) == (-np.inf, 1000)
    assert not abstention.abstains(np.array([[0.0, 1e-9], [0.0, 0.0]])).any()


@pytest.mark.parametrize("pairs", [2, 50, 400])
def test_impossible_promise(pairs):
    """A rate that cannot be promised is refused with the lowest one that can, which then works."""
    logits, labels = draw("two levels", np.random.default_rng(3), pairs)
    with pytest.raises(InputError, match=rf"cannot be promised .* the {pairs} dev pairs") as error:
        choose_cut(logits, labels, 1e-3)
    lowest = float(str(error.value).rpartition(" ")[2])
    assert choose_cut(logits, labels, min(lowest, 0.9999)).predicted > 0
    with pytest.raises(InputError):
        choose_cut(logits, labels, lowest - 2e-4)


def test_equal_logits():
    """Pairs with equal log-odds are predicted together or not at all."""
    labels = np.array([0] * 90 + [1] * 10)
    abstention = choose_cut(np.tile([2.0, 0.0], (100, 1)), labels, 0.3)
    assert (abstention.cut, abstention.predicted, abstention.errors) == (-np.inf, 100, 10)


def test_three_classes():
    """With three classes, the log-odds are those of the likeliest class against the rest."""
    rng = np.random.default_rng(4)
    labels = rng.integers(3, size=2000)
    logits = rng.normal(size=(2000, 3)) + 3 * np.eye(3)[labels]
    abstention = choose_cut(logits, labels, 0.05)
    kept = ~abstention.abstains(logits)
    assert kept.sum() == abstention.predicted
    assert (logits.argmax(axis=1) != labels)[kept].sum() == abstention.errors
    assert 0 < abstention.errors < 0.05 * abstention.predicted
