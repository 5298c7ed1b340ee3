"""Churn: the share of pairs whose prediction changes between seeds and between settings (Fard et al. 2016).

A setting can gain a point of accuracy by winning a point of the pairs, or by winning eight and losing seven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from afqmc.results.resampled_metrics import Array, LabelledPredictions
from afqmc.utils.language import msg


@dataclass(frozen=True)
class Churn:
    """Shares of the pairs whose predictions differ between two settings, as means over their runs. Keys of the JSON.

    Attributes:
        changed: Share of pairs with different predictions.
        low: Lower end of its 95% interval, over samples of pairs.
        high: Upper end.
        won: Share that only the first setting predicts correctly.
        lost: Share that only the second setting predicts correctly.
        between_seeds: Share with different predictions of two seeds of one setting, the mean of both settings; None
            if no setting has two runs.
    """

    changed: float
    low: float
    high: float
    won: float
    lost: float
    between_seeds: float | None


def churn(a: Sequence[LabelledPredictions], b: Sequence[LabelledPredictions], groups: Array | None) -> Churn:
    """Compare the predictions of all runs of two settings.

    Args:
        a: Predictions of the runs of the first setting on the same N pairs.
        b: Those of the second one.
        groups: The group of each pair, (N,): pairs that share a sentence. None: pairs are independent.
    """
    changed = np.mean([one.predicted != other.predicted for one, other in product(a, b)], axis=0)
    right_a, right_b = (np.mean([one.predicted == one.gold for one in runs], axis=0) for runs in (a, b))
    both = np.mean(
        [(one.predicted == one.gold) & (other.predicted == other.gold) for one, other in product(a, b)], axis=0
    )
    within = [
        np.mean([np.mean(one.predicted != other.predicted) for one, other in combinations(runs, 2)])
        for runs in (a, b)
        if len(runs) > 1
    ]
    share, error = float(changed.mean()), _standard_error(changed, groups)
    return Churn(
        changed=share,
        low=max(share - 1.96 * error, 0.0),
        high=min(share + 1.96 * error, 1.0),
        won=float((right_a - both).mean()),
        lost=float((right_b - both).mean()),
        between_seeds=float(np.mean(within)) if within else None,
    )


def _standard_error(values: Array, groups: Array | None) -> float:
    """Return the standard error of a mean, with the sums of groups as independent units."""
    deviations = values - values.mean()
    sums = deviations if groups is None else np.bincount(groups, deviations)
    units = len(sums)
    return float(np.sqrt((sums**2).sum() * units / max(units - 1, 1))) / len(values)


def churn_sentence(a: str, b: str, result: Churn) -> str:
    """Return how many predictions differ between two settings, and which of them are right."""
    values = {
        "a": a,
        "b": b,
        "changed": _percent(result.changed),
        "low": _percent(result.low),
        "high": _percent(result.high),
        "won": _percent(result.won),
        "lost": _percent(result.lost),
    }
    sentence = msg(
        "{a} and {b} differ in {changed} of the predictions (95% CI {low} to {high}): {won} are right only with {a}, "
        "{lost} only with {b}",
        **values,
    )
    if result.between_seeds is None:
        return sentence
    seeds = _percent(result.between_seeds)
    return msg("{sentence}; two seeds of one setting differ in {seeds}", sentence=sentence, seeds=seeds)


def _percent(share: float) -> str:
    return f"{share:.1%}"
