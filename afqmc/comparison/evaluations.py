"""How many evaluations the runs of a setting chose their weights from, and how much that flatters their metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afqmc.comparison.selection import selection_optimism
from afqmc.results.resampled_metrics import Array
from afqmc.results.runs import Run
from afqmc.results.settings import Setting
from afqmc.utils.errors import InputError
from afqmc.utils.language import msg


@dataclass(frozen=True)
class EvaluationCounts:
    """The metric at each evaluation of the runs of a setting, one list per run that can be read.

    Empty if the compared metric is not the one that chose the weights: then they were not chosen by its noise.
    """

    values: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, setting: Setting, metric: str) -> EvaluationCounts:
        """Read metrics.jsonl of the runs."""
        values = [evaluation_values(run, metric) for run in setting.runs if run.monitor == metric]
        return cls(tuple(tuple(one) for one in values if one))

    def __str__(self) -> str:
        """Return ``3``, or ``3 to 5`` if the runs have different numbers."""
        counts = sorted({len(values) for values in self.values})
        if not counts:
            return "?"
        return str(counts[0]) if len(counts) == 1 else msg("{low} to {high}", low=counts[0], high=counts[-1])


def evaluation_values(run: Run, metric: str) -> list[float]:
    """Return the metric at each evaluation of a run; empty if its metrics.jsonl cannot be read."""
    try:
        values = [row.get(metric) for row in run.rows()]
    except InputError:
        return []
    return [float(value) for value in values if isinstance(value, int | float) and np.isfinite(value)]


def choice_corrections(
    settings: Sequence[EvaluationCounts], run_variance: float, higher_is_better: bool
) -> Array | None:
    """Return what choosing the best evaluation adds to the mean of each setting, (K,), in the metric's unit.

    None if all runs have equal numbers of evaluations, since then the choice favours no setting, or if the evaluations
    are not known. Runs with the same number get the same correction, the mean of their estimates.

    Two evaluations of a run differ by the examples less than two runs of different seeds do. The estimate is made with
    the noise of the latter, and so is an upper bound.

    Args:
        settings: The evaluations of the runs of K settings.
        run_variance: Variance of a run's metric over examples that it does not share with other runs.
        higher_is_better: Whether the largest value was kept.
    """
    by_count: dict[int, list[tuple[float, ...]]] = {}
    for setting in settings:
        if not setting.values:
            return None
        for values in setting.values:
            by_count.setdefault(len(values), []).append(values)
    if len(by_count) < 2:
        return None
    sign = 1 if higher_is_better else -1
    means = {
        count: float(np.mean([selection_optimism(sign * np.asarray(values), run_variance) for values in runs]))
        for count, runs in by_count.items()
    }
    return sign * np.array([np.mean([means[len(values)] for values in setting.values]) for setting in settings])
