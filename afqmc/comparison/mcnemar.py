"""McNemar's test of two runs on the same examples."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.results.resampled_metrics import LabelledPredictions


@dataclass(frozen=True)
class McNemar:
    """Examples that one of two runs got right and the other wrong, and the exact p-value of so uneven a split."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: LabelledPredictions, second: LabelledPredictions) -> McNemar:
    """Of two runs on the same examples."""
    from statsmodels.stats.contingency_tables import mcnemar as exact

    one, other = first.predicted == first.gold, second.predicted == second.gold
    table = [[int((a & b).sum()) for b in (other, ~other)] for a in (one, ~one)]
    return McNemar(table[0][1], table[1][0], float(exact(table, exact=True).pvalue))
