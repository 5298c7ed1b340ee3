"""Where each compared setting stands: its interval, whether it may be the best, and what more trials would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afqmc.comparison.pairwise import PairwiseTests
from afqmc.results.resampled_metrics import Array


@dataclass(frozen=True)
class Standing:
    """The standing of one setting. The names are keys of the JSON output.

    Attributes:
        low: Lower end of the 95% interval of its metric, for other examples and, with several seeds, other seeds.
        high: Upper end.
        may_be_best: Whether no other compared setting is significantly better.
        best_share: Share of samples of examples and seeds in which it is the best of the compared settings.
    """

    low: float
    high: float
    may_be_best: bool
    best_share: float


def standings(tests: PairwiseTests, higher_is_better: bool) -> list[Standing]:
    """Return the standing of each compared setting, in the order of ``tests``."""
    sign = 1 if higher_is_better else -1
    shares = _best_shares(tests, sign)
    result = []
    for index, mean in enumerate(tests.means):
        margin = tests.margin_of_mean(index)
        result.append(
            Standing(
                low=float(mean - margin),
                high=float(mean + margin),
                may_be_best=not any(tests.is_better(other, index, sign) for other in range(len(tests.means))),
                best_share=float(shares[index]),
            )
        )
    return result


def _best_shares(tests: PairwiseTests, sign: int) -> Array:
    """Return how often each setting is the best over the bootstrap's draws, with seeds redrawn, (K,)."""
    noise = np.sqrt(tests.seed_variance.beyond_examples)
    draws = tests.draws + np.random.default_rng(0).normal(0, noise, tests.draws.shape)
    best = (sign * draws).argmax(axis=1)
    return np.bincount(best, minlength=len(tests.means)) / len(draws)


def expected_best(values: Sequence[float], higher_is_better: bool) -> Array:
    """Return the expected best result of 1 to N trials that are drawn from N results (Dodge et al. 2019), (N,).

    With the sorted results v_1 <= ... <= v_N, the expected best of n draws with replacement is
    sum over i of v_i ((i / N)^n - ((i - 1) / N)^n), their equation 7.
    """
    sign = 1 if higher_is_better else -1
    ordered = np.sort(sign * np.asarray(values, dtype=float))
    count = len(ordered)
    ranks, trials = np.arange(count + 1) / count, np.arange(1, count + 1)[:, None]
    chances = np.diff(ranks[None, :] ** trials, axis=1)  # that the i-th smallest is the best of n, (N, N)
    return np.asarray(sign * (chances @ ordered))
