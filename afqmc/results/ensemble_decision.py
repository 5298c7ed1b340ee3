"""Calibrate and decide the mean of several runs as one model, on the dev predictions that they stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afqmc.evaluation.decision import CrossFit, Decision
from afqmc.evaluation.metrics import decision_metrics, mean_as_logits
from afqmc.results.prediction_table import PredictionTable
from afqmc.results.runs import find_runs
from afqmc.utils.errors import InputError


@dataclass(frozen=True)
class EnsembleDecision:
    """The decision of the mean of several runs.

    Attributes:
        decision: Fitted on the mean of the runs' dev predictions.
        folds: The parts of dev for cross-fitting (``decision.folds``).
        figures: A text with the cross-fitted accuracy and F1 on dev.
    """

    decision: Decision
    folds: int
    figures: str


def decide_ensemble(run_dirs: Sequence[Path]) -> EnsembleDecision:
    """Fit a decision on the mean of the runs' dev predictions.

    Raises:
        InputError: with the reason why the mean has no decision, such as different dev pairs, as with folds.
    """
    runs = [find_runs([str(path)])[0] for path in run_dirs]
    goals, folds = {run.config.get("decision.metric") for run in runs}, runs[0].config.get("decision.folds")
    if len(goals) > 1:
        raise InputError("the runs have different values of decision.metric")
    if not isinstance(folds, int):
        raise InputError(f"the config of {runs[0].name} has no decision.folds")
    tables = [PredictionTable.of(run, "dev") for run in runs]
    first = tables[0]
    for run, table in zip(runs, tables, strict=True):
        if difference := first.differs_from(table):
            raise InputError(f"the dev pairs of {run.name} are not those of {runs[0].name} ({difference})")
    if first.gold is None:
        raise InputError("the dev pairs have no labels")
    groups = np.arange(len(first.ids)) if first.groups is None else first.groups
    cross_fit = CrossFit.of_groups(first.gold, groups, goals.pop(), folds)
    logits = mean_as_logits([table.logits for table in tables])
    decision = None if cross_fit is None else cross_fit.fit(logits)
    if cross_fit is None or decision is None:
        raise InputError("dev has too few pairs")
    decided = cross_fit.metrics(logits)
    plain = decision_metrics(logits.argmax(axis=1), first.gold, logits.shape[1])
    figures = (
        f"the mean on dev, cross-fitted: accuracy {decided['accuracy_decided']:.4f}, F1 {decided['f1_decided']:.4f}; "
        f"likeliest label: accuracy {plain['accuracy']:.4f}, F1 {plain['f1']:.4f}"
    )
    return EnsembleDecision(decision, folds, figures)
