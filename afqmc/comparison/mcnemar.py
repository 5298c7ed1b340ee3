"""McNemar's test of two runs on the same examples."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.results.resampled_metrics import LabelledPredictions


@dataclass(frozen=True)
class McNemar:
    """Numbers of examples that only one of two runs predicted correctly, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(a: LabelledPredictions, b: LabelledPredictions) -> McNemar:
    """Compute the exact test for two runs on the same examples."""
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    a_correct, b_correct = a.predicted == a.gold, b.predicted == b.gold
    table = [[int((row & column).sum()) for column in (b_correct, ~b_correct)] for row in (a_correct, ~a_correct)]
    return McNemar(table[0][1], table[1][0], float(exact_test(table, exact=True).pvalue))
