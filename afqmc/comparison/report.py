"""The whole comparison as plain data: what a table, a file or a page shows."""

from __future__ import annotations

from dataclasses import dataclass

from afqmc.comparison.bootstrap import Difference, PairwiseTests
from afqmc.comparison.mcnemar import McNemar
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.results.runs import Run
from afqmc.results.settings import Setting


@dataclass(frozen=True)
class Comparison:
    """Two settings; ``mcnemar`` where each is a single run."""

    first: Setting
    second: Setting
    difference: Difference
    mcnemar: McNemar | None
    sentence: str


@dataclass(frozen=True)
class Report:
    """Runs, ranked and told apart.

    Attributes:
        metric: As ``split/name``.
        keys: The settings that differ, by dotted key.
        settings: By the data they were scored on, and of the same data best first; those without the metric last.
        data_of: The number of the data that each setting was scored on, from 1.
        unfinished: Runs without final figures, and why.
        compared: The settings that ``family`` is about, by its numbers.
        together: The metric of those with folds, the folds of a seed as one model, mean over seeds.
        family: Differences of any two of these; None where there are no two.
        comparisons: The best of them against each other one.
        refused: Settings that cannot be compared with the best, and why.
        assumed: Keys that some runs' configs are too old to have; their defaults are taken.
        notes: What else a reader must know to read the figures rightly.
    """

    metric: str
    keys: list[str]
    settings: list[Setting]
    data_of: dict[Setting, int]
    unfinished: list[Run]
    compared: list[Setting]
    together: dict[Setting, float]
    family: PairwiseTests | None
    comparisons: list[Comparison]
    refused: list[tuple[Setting, str]]
    assumed: list[str]
    notes: list[str]

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return higher_is_better(self.metric)
