"""Selective prediction: leave uncertain pairs without a prediction, such that few of the other predictions are wrong.

Pairs are ordered by the log-odds of their likeliest label. The error rate above a cut is bounded by the exact binomial
test on dev, as in selection with guaranteed risk (Geifman & El-Yaniv 2017, Lemma 3.1). The cuts are at fixed ranks of
the dev pairs, and their number divides the level of the test (Bonferroni). Therefore the bound holds for whichever cut
is chosen, without an assumption on the model: given the pair at a rank, the pairs above it are independent draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from afqmc.evaluation.metrics import log_odds_of
from afqmc.utils.errors import InputError

CONFIDENCE = 0.95
_CUTS = 20  # at 5%, 10%, ... 100% of the dev pairs


@dataclass(frozen=True)
class Abstention:
    """A cut on the log-odds of the likeliest label. Pairs that are not above it get no prediction.

    Attributes:
        rate: The promised error rate of the predictions above the cut.
        cut: In log-odds; minus infinity if no pair is left out.
        pairs: Dev pairs.
        predicted: Dev pairs above the cut.
        errors: Wrong predictions among them.
    """

    rate: float
    cut: float
    pairs: int
    predicted: int
    errors: int

    def abstains(self, logits: np.ndarray) -> np.ndarray:
        """Return for logits (N, C) whether a pair gets no prediction, (N,)."""
        return np.asarray(~(log_odds_of(logits).max(axis=1) > self.cut))

    def describe(self, left: int, pairs: int) -> str:
        """Say what is promised, and how many of the pairs to predict are left without a prediction."""
        left_on_dev = self.pairs - self.predicted
        return (
            f"abstain: at most {100 * self.rate:g}% of the predictions are wrong, with {CONFIDENCE:.0%} confidence, "
            f"for pairs from the same source as dev; {left} of {pairs} pairs get no prediction (on dev "
            f"{left_on_dev} of {self.pairs}, with {self.errors} errors in {self.predicted} predictions)"
        )


def choose_cut(logits: np.ndarray, labels: np.ndarray, rate: float) -> Abstention:
    """Return the lowest cut above which at most a share ``rate`` of the labels is wrong, with 95% confidence.

    Args:
        logits: Of dev pairs that the model was not trained on, (N, C), all finite.
        labels: Class indices (N,).
        rate: Between 0 and 1.

    Raises:
        InputError: if no cut has so few errors; with the lowest rate that can be promised.
    """
    from scipy.stats import beta, binom

    odds, wrong = log_odds_of(logits).max(axis=1), logits.argmax(axis=1) != labels
    pairs, descending = len(labels), np.sort(odds)[::-1]
    ranks = [pairs * cut // _CUTS for cut in range(1, _CUTS)]  # the pairs before the one at this rank are above it
    cuts = np.array([*descending[ranks], -np.inf])
    predicted = np.array([(odds > cut).sum() for cut in cuts])
    errors = np.array([wrong[odds > cut].sum() for cut in cuts])
    level = (1 - CONFIDENCE) / _CUTS
    valid = np.flatnonzero((binom.cdf(errors, predicted, rate) <= level) & (predicted > 0))
    if not len(valid):
        bounds = np.asarray(beta.ppf(1 - level, errors + 1, np.maximum(predicted - errors, 1e-9)))  # Clopper & Pearson
        lowest = math.ceil(1e4 * float(bounds.min())) / 1e4
        raise InputError(
            f"--abstain {rate:g}: cannot be promised for any share of the pairs; the {pairs} dev pairs of the run "
            f"allow at best {lowest:g}"
        )
    best = int(valid[-1])
    return Abstention(rate, float(cuts[best]), pairs, int(predicted[best]), int(errors[best]))
