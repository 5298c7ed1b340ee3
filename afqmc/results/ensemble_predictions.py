"""Rows of several runs as one: every pair by the run that held it out, or by the mean of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afqmc.results.prediction_table import PredictionTable, concat_folds, mean_of
from afqmc.results.predictions import Predictions
from afqmc.results.runs import Run
from afqmc.results.settings import Setting, group_by_setting, missing_folds, varying_keys
from afqmc.results.untrusted_files import read_object
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none

Figures = dict[str, Any]


@dataclass(frozen=True)
class EnsemblePredictions:
    """Pairs with the mean of what several members said of each.

    Attributes:
        rows: The means.
        members: What each said of the same pairs: seeds, or single runs.
    """

    rows: PredictionTable
    members: list[PredictionTable]

    def figures(self) -> Figures:
        """Metrics of the means by name, None where one is undefined; empty where the pairs have no labels."""
        return _figures(self.rows)

    def detail(self) -> Figures:
        """Figures of each class, and the notes on all of them; empty where the pairs have no labels."""
        from afqmc.evaluation.per_class import metric_notes, per_class

        rows = self.rows
        if rows.gold is None:
            return {}
        told = metric_notes(self.figures(), rows.probabilities, rows.gold, rows.classes)
        return {**per_class(rows.probabilities, rows.gold, rows.classes), "notes": told}

    def spread(self) -> Figures:
        """How far the members are from one another.

        ``disagreement`` is the share of pairs that two members, taken at random, label otherwise;
        ``probability_sd`` the standard deviation (n - 1) of a label's probability over members, its mean over all.
        """
        if len(self.members) < 2:
            return {}
        said = np.stack([member.predicted for member in self.members])
        apart = [(one != other).mean() for place, one in enumerate(said) for other in said[place + 1 :]]
        deviation = np.std([member.probabilities for member in self.members], axis=0, ddof=1).mean()
        every = [_figures(member) for member in self.members]
        return {
            "disagreement": float(np.mean(apart)),
            "probability_sd": float(deviation),
            **{name: summarize([one[name] for one in every]) for name in every[0]},
        }


def out_of_fold(runs: Sequence[Run]) -> EnsemblePredictions:
    """Every pair of the file that was cut, as predicted by the run that held it out; the mean over seeds.

    Raises:
        InputError: where a fold of a seed is missing, or they are folds of different files.
    """
    digests: dict[str, Run] = {}
    seeds = require_one_setting(runs).by_seed()
    for seed in seeds:
        if absent := missing_folds(seed):
            raise InputError(f"seed {seed[0].seed}: {absent}")
    members = [_joined(seed, digests) for seed in seeds]
    if len(digests) > 1:
        names = " and ".join(run.name for run in digests.values())
        raise InputError(f"{names}: folds of different files, or of different states of one")
    return EnsemblePredictions(mean_of(members), members)


def _joined(seed: Sequence[Run], digests: dict[str, Run]) -> PredictionTable:
    """All folds of a seed; ``digests`` is told which file they are of."""
    pairs = 0
    for run in seed:
        cut = read_object(run.path / "summary.json").get("folds")
        if not isinstance(cut, dict) or not isinstance(cut.get("pairs"), int):
            raise InputError(f"{run.name}: summary.json does not say what its fold is a part of")
        digests.setdefault(str(cut.get("sha256")), run)
        pairs = cut["pairs"]
    rows = _fitting(concat_folds, seed, [_rows(run, "dev") for run in seed])
    if len(rows.ids) != pairs:
        raise InputError(
            f"seed {seed[0].seed}: its folds predicted {len(rows.ids)} of {pairs} pairs (dataset.max_dev_samples cuts "
            "folds short)"
        )
    return rows


def ensemble_test(runs: Sequence[Run]) -> EnsemblePredictions:
    """The mean of what all runs said of the test split.

    Raises:
        InputError: where one has none, or another than the others.
    """
    members = [_rows(run, "test") for run in runs]
    return EnsemblePredictions(_fitting(mean_of, runs, members), members)


def _rows(run: Run, split: str) -> PredictionTable:
    """A run's, held to its summary where that has figures."""
    metric = f"{split}/accuracy"
    try:
        return Predictions.of(run, metric).rows if metric in run.figures else PredictionTable.of(run, split)
    except InputError as error:
        raise InputError(f"{run.name}: {error}") from error


def _fitting(
    put_together: Callable[[Sequence[PredictionTable]], PredictionTable],
    runs: Sequence[Run],
    parts: Sequence[PredictionTable],
) -> PredictionTable:
    try:
        return put_together(parts)
    except InputError as error:
        raise InputError(f"{runs[0].name} and the others do not fit together: {error}") from error


def summarize(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean, standard deviation (n - 1), least and most of the values that are defined."""
    there = [value for value in values if value is not None]
    if not there:
        return {"mean": None, "sd": None, "min": None, "max": None}
    sd = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return {"mean": float(np.mean(there)), "sd": sd, "min": min(there), "max": max(there)}


def _figures(rows: PredictionTable) -> Figures:
    from afqmc.evaluation.metrics import classification_metrics

    return {} if rows.gold is None else nan_to_none(classification_metrics(rows.logits, rows.gold))


def require_complete(runs: Sequence[Run], skip_incomplete: bool) -> list[Run]:
    """Those with final figures; two at least.

    Raises:
        InputError: naming those without, unless they may be left out.
    """
    found = [run for run in runs if run.is_complete]
    lacking = [f"{run.name} ({', '.join(filter(None, (run.status, run.why)))})" for run in runs if not run.is_complete]
    if lacking and not skip_incomplete:
        raise InputError(f"without final figures: {'; '.join(lacking)}; --skip-incomplete leaves them out")
    if len(found) < 2:
        raise InputError(f"an ensemble has two complete runs or more; here is {len(found)} of {len(runs)}")
    return found


def require_one_setting(runs: Sequence[Run]) -> Setting:
    """The setting that all runs have.

    Raises:
        InputError: where they differ in more than seed and fold, or two of them in nothing.
    """
    if keys := varying_keys(runs):
        raise InputError(
            f"the runs differ in {', '.join(keys)}: folds and seeds of one setting are put together; name the "
            "directories of its runs"
        )
    (setting,) = group_by_setting(runs)
    if setting.repeats:
        names = ", ".join(run.name for run in setting.repeats)
        raise InputError(f"{names}: the same seed and fold as another run here")
    return setting
