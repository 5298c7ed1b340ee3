"""The comparison as plain data, from which the terminal, the files and the page are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from afqmc.comparison.churn import Churn
from afqmc.comparison.mcnemar import McNemar
from afqmc.comparison.pairwise import Difference, PairwiseTests
from afqmc.comparison.selection import setting_selection_bias
from afqmc.comparison.standing import Standing, standings
from afqmc.comparison.wording import baseline_headline, display_name, headline
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, Setting

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Comparison:
    """The best setting, or the baseline, against another one; ``mcnemar`` is set if each of them is a single run.

    ``difference`` is the metric of the best setting minus that of the other one; with a baseline, it is that of the
    other one minus that of the baseline. ``has_remarks`` is whether the sentence says more than the difference, such as
    that runs failed.
    """

    reference: Setting
    other: Setting
    difference: Difference
    mcnemar: McNemar | None
    sentence: str
    churn: Churn
    churn_sentence: str
    has_remarks: bool = False


@dataclass(frozen=True)
class ComparisonReport:
    """Ranked settings and the differences between them.

    Attributes:
        metric: As ``split/name``.
        keys: Dotted config keys in which the settings differ.
        settings: Sorted by ``data_index``, then best first; settings without the metric come last.
        data_index: Number of the data that each setting was evaluated on, from 1.
        unfinished: Runs without final metrics.
        compared: The settings compared, in the order of the indices of ``tests``: the baseline or the best one first.
        folds_metric: Metric of each compared setting with folds: the folds of a seed combined, averaged over seeds.
        tests: Differences between any two compared settings; None if there are fewer than two.
        comparisons: The best setting, or the baseline, against each other one.
        incomparable: Settings that cannot be compared with the best one, and why.
        defaulted_keys: Keys that some runs' configs lack; their default is assumed.
        caveats: What readers need to know to interpret the results.
        baseline: The setting that all others are compared with; None: the best one.
        are_pairs_connected: Whether nearly all pairs are connected by shared sentences, so that intervals ignore it.
        published: Sentences about the compared settings and published results.
    """

    metric: str
    keys: list[str]
    settings: list[Setting]
    data_index: dict[Setting, int]
    unfinished: list[Run]
    compared: list[Setting]
    folds_metric: dict[Setting, float]
    tests: PairwiseTests | None
    comparisons: list[Comparison]
    incomparable: list[tuple[Setting, str]]
    defaulted_keys: list[str]
    caveats: list[str]
    baseline: Setting | None = None
    published: Sequence[str] = ()
    are_pairs_connected: bool = False

    def to_pandas(self) -> DataFrame:
        """Return one row per setting, best first within each data set.

        Columns: the config keys in which the settings differ; ``mean``, ``sd`` (n - 1) and ``n`` of the metric over
        runs, and ``mean_low`` to ``mean_high``, the 95% interval of the mean (NaN with folds); and the ``difference``
        of the best setting minus this one (or of this one minus the baseline), its 95% interval ``low`` to ``high``,
        ``p_adjusted`` and the ``sentence`` that the command prints. NaN and None where a setting was not compared.
        """
        import pandas as pd

        by_setting = {comparison.other: comparison for comparison in self.comparisons}
        rows = []
        for setting in self.settings:
            row = {key: None if value is MISSING else value for key, value in setting.values.items()}
            row |= {"mean": setting.mean(self.metric), "sd": setting.deviation(self.metric)}
            row |= {"n": len(setting.figures(self.metric))}
            row |= dict(zip(("mean_low", "mean_high"), self.mean_interval(setting) or (None, None), strict=True))
            comparison = by_setting.get(setting)
            test = None if comparison is None else comparison.difference
            row |= {
                "difference": None if test is None else test.value,
                "low": None if test is None else test.low,
                "high": None if test is None else test.high,
                "p_adjusted": None if test is None else test.p_adjusted,
                "sentence": None if comparison is None else comparison.sentence,
            }
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index([setting.name for setting in self.settings], name="setting"))

    @property
    def headline(self) -> str | None:
        """One sentence about all comparisons; None without any."""
        if not self.comparisons:
            return None
        name = display_name(self.compared[0], self.settings)
        differences = [comparison.difference for comparison in self.comparisons]
        if self.baseline is not None:
            return baseline_headline(name, differences, self.metric)
        return headline(name, differences)

    @cached_property
    def standings(self) -> list[Standing]:
        """Where each compared setting stands."""
        return [] if self.tests is None else standings(self.tests, self.higher_is_better)

    def interval(self, setting: Setting) -> tuple[float, float] | None:
        """Return the 95% interval of a setting's mean, for other pairs and, with several seeds, other seeds.

        With folds, it is that of the metric of combined folds. None if the setting was not compared.
        """
        if setting not in self.compared or not self.standings:
            return None
        standing = self.standings[self.compared.index(setting)]
        return standing.low, standing.high

    def mean_interval(self, setting: Setting) -> tuple[float, float] | None:
        """Return the same; None with folds, where it is about the combined folds and not the mean over runs."""
        return None if setting in self.folds_metric else self.interval(setting)

    @property
    def possible_best(self) -> list[Setting]:
        """The compared settings that may be the best, since no other one is significantly better."""
        pairs = zip(self.compared, self.standings, strict=False)
        return [setting for setting, standing in pairs if standing.may_be_best]

    @property
    def selection_bias(self) -> tuple[float, float] | None:
        """By how much choosing row 1 flatters its metric, in its unit, as a range; None if nothing was compared."""
        if self.folds_metric:
            return self._selection_bias_of_folds()
        metrics = [setting.mean(self.metric) for setting in self.settings if self.data_index[setting] == 1]
        means = np.array([mean for mean in metrics if mean is not None])
        if self.tests is None or len(means) < 2:
            return None
        seeds = np.array([len(setting.figures(self.metric)) for setting in self.settings[: len(means)]])
        return setting_selection_bias(self.tests, means, seeds, self.higher_is_better)

    def _selection_bias_of_folds(self) -> tuple[float, float] | None:
        """Return the same for settings with folds, of which only the compared ones have a metric of combined folds."""
        if self.tests is None or len(self.compared) < 2:
            return None
        return setting_selection_bias(self.tests, self.tests.means, self.tests.seeds, self.higher_is_better)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the metric is better."""
        return higher_is_better(self.metric)
