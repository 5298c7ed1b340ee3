"""Combine the predictions of several runs: out-of-fold, or as the mean over all runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from afqmc.results.metric_intervals import add_intervals
from afqmc.results.prediction_table import PredictionTable, concat_folds, mean_of
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import drawable_groups
from afqmc.results.runs import Run
from afqmc.results.settings import Setting, group_by_setting, missing_folds, varying_keys
from afqmc.results.untrusted_files import read_object
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none

Figures = dict[str, Any]


@dataclass(frozen=True)
class EnsemblePredictions:
    """The mean of several members' predictions of the same pairs.

    Attributes:
        rows: The mean predictions.
        members: The predictions of each seed or run.
    """

    rows: PredictionTable
    members: list[PredictionTable]

    def figures(self) -> Figures:
        """Return the metrics of the mean predictions, None for undefined ones; empty for unlabelled pairs."""
        return _figures(self.rows)

    def detail(self) -> Figures:
        """Return per-class figures, notes on the metrics and 95% intervals; empty for unlabelled pairs."""
        from afqmc.evaluation.per_class import metric_notes, per_class

        rows = self.rows
        if rows.gold is None:
            return {}
        notes = metric_notes(self.figures(), rows.probabilities, rows.gold, rows.classes)
        details = {**per_class(rows.probabilities, rows.gold, rows.classes), "notes": notes}
        return add_intervals(details, rows.answers(), drawable_groups(rows.groups))

    def spread(self) -> Figures:
        """Return how much the members differ; empty for a single member.

        ``disagreement`` is the share of pairs that two members label differently, averaged over all pairs of members.
        ``probability_sd`` is the standard deviation (n - 1) of a label's probability over members, averaged over
        pairs and labels.
        """
        if len(self.members) < 2:
            return {}
        disagreements = [(a.predicted != b.predicted).mean() for a, b in combinations(self.members, 2)]
        deviation = np.std([member.probabilities for member in self.members], axis=0, ddof=1).mean()
        figures = [_figures(member) for member in self.members]
        return {
            "disagreement": float(np.mean(disagreements)),
            "probability_sd": float(deviation),
            **{name: ensemble_summary([member[name] for member in figures]) for name in figures[0]},
        }


def out_of_fold(runs: Sequence[Run]) -> EnsemblePredictions:
    """Return each training pair as predicted by the run that held it out, averaged over seeds.

    Raises:
        InputError: If a seed lacks a fold, or the folds are of different files.
    """
    digests: dict[str, Run] = {}
    seeds = require_one_setting(runs).by_seed()
    for seed in seeds:
        if missing := missing_folds(seed):
            raise InputError(f"seed {seed[0].seed}: {missing}")
    members = [_concat_seed(seed, digests) for seed in seeds]
    if len(digests) > 1:
        names = " and ".join(run.name for run in digests.values())
        raise InputError(f"{names}: folds of different files, or of different versions of one")
    return EnsemblePredictions(mean_of(members), members)


def _concat_seed(seed: Sequence[Run], digests: dict[str, Run]) -> PredictionTable:
    """Concatenate all folds of a seed, and add the digest of the file that was split to ``digests``."""
    pairs = 0
    for run in seed:
        split = read_object(run.path / "summary.json").get("folds")
        if not isinstance(split, dict) or not isinstance(split.get("pairs"), int):
            raise InputError(f"{run.name}: summary.json does not record the folds (folds.pairs is missing)")
        digests.setdefault(str(split.get("sha256")), run)
        pairs = split["pairs"]
    rows = _combine(concat_folds, seed, [_rows(run, "dev") for run in seed])
    if len(rows.ids) != pairs:
        raise InputError(
            f"seed {seed[0].seed}: its folds predicted {len(rows.ids)} of {pairs} pairs (dataset.max_dev_samples "
            "truncates folds)"
        )
    return rows


def ensemble_test(runs: Sequence[Run]) -> EnsemblePredictions:
    """Return the mean of all runs' predictions on the test split.

    Raises:
        InputError: If a run has no test predictions, or has a different test split.
    """
    members = [_rows(run, "test") for run in runs]
    return EnsemblePredictions(_combine(mean_of, runs, members), members)


def _rows(run: Run, split: str) -> PredictionTable:
    """Read a run's predictions, and check them against its summary if that has figures for the split."""
    metric = f"{split}/accuracy"
    try:
        return Predictions.of(run, metric).rows if metric in run.figures else PredictionTable.of(run, split)
    except InputError as error:
        raise InputError(f"{run.name}: {error}") from error


def _combine(
    combine: Callable[[Sequence[PredictionTable]], PredictionTable],
    runs: Sequence[Run],
    tables: Sequence[PredictionTable],
) -> PredictionTable:
    try:
        return combine(tables)
    except InputError as error:
        raise InputError(f"{runs[0].name} and the others cannot be combined: {error}") from error


def ensemble_summary(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return mean, standard deviation (n - 1), minimum and maximum of the values that are defined."""
    defined = [value for value in values if value is not None]
    if not defined:
        return {"mean": None, "sd": None, "min": None, "max": None}
    sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return {"mean": float(np.mean(defined)), "sd": sd, "min": min(defined), "max": max(defined)}


def _figures(rows: PredictionTable) -> Figures:
    from afqmc.evaluation.metrics import classification_metrics

    return {} if rows.gold is None else nan_to_none(classification_metrics(rows.logits, rows.gold))


def require_complete(runs: Sequence[Run], skip_incomplete: bool) -> list[Run]:
    """Return the runs with final figures.

    Raises:
        InputError: If a run has none and ``skip_incomplete`` is off, or fewer than two runs are left.
    """
    complete = [run for run in runs if run.is_complete]
    incomplete = [
        f"{run.name} ({', '.join(filter(None, (run.status, run.why)))})" for run in runs if not run.is_complete
    ]
    if incomplete and not skip_incomplete:
        raise InputError(f"without final figures: {'; '.join(incomplete)}; --skip-incomplete leaves them out")
    if len(complete) < 2:
        raise InputError(f"an ensemble needs at least 2 complete runs; {len(complete)} of {len(runs)} are complete")
    return complete


def require_one_setting(runs: Sequence[Run]) -> Setting:
    """Return the common setting of all runs.

    Raises:
        InputError: If the runs differ in more than seed and fold, or two have the same seed and fold.
    """
    if keys := varying_keys(runs):
        raise InputError(
            f"the runs differ in {', '.join(keys)}: an ensemble combines the folds and seeds of one setting; name only "
            "the directories of its runs"
        )
    (setting,) = group_by_setting(runs)
    if setting.repeats:
        names = ", ".join(run.name for run in setting.repeats)
        raise InputError(f"{names}: the same seed and fold as another run here")
    return setting
