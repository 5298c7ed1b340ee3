"""Details of the best settings' median runs: confusion, PR, ROC and calibration curves, and their disagreements."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from afqmc.comparison.html.class_curves import class_curves, resampled_pairs
from afqmc.comparison.html.json_embedding import base64_array
from afqmc.comparison.html.pair_texts import PairTexts, read_texts
from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.slices import slice_differences
from afqmc.comparison.wording import split_of
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import drawable_groups
from afqmc.results.runs import Run
from afqmc.results.settings import Setting
from afqmc.utils.errors import InputError
from afqmc.utils.language import Message, chinese

MAX_RUNS = 8  # as many as there are distinguishable colours
MAX_PAIRS = 5000  # in the table of disagreements
_MAX_CLASSES = 12  # with a curve, and a row of the confusion matrix


def best_runs(report: ComparisonReport, with_sentences: bool, columns: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return the details of the median run of each of the best settings; None if no settings can be compared.

    Args:
        report: The comparison.
        with_sentences: Include the sentences of the pairs, if the data are on this machine.
        columns: Columns of the data to slice the pairs by.

    Raises:
        InputError: if the data have no such column, or cannot be read.
    """
    repetitions = [median_repetition(setting, report.metric) for setting in report.compared[:MAX_RUNS]]
    runs = [repetition[0] for repetition in repetitions]
    predictions = [_read_predictions(repetition, report.metric) for repetition in repetitions]
    if not predictions:
        return None
    texts, why = read_texts(runs[0], split_of(report.metric), predictions[0], columns)
    if columns and why is not None:
        raise InputError(f"--slice {columns[0]}: {why}")
    gold, names = predictions[0].answers.gold, predictions[0].rows.classes
    groups = drawable_groups(predictions[0].rows.groups)
    counts = resampled_pairs(len(gold), groups)
    most_frequent = np.argsort(-np.bincount(gold, minlength=len(names)), kind="stable")[:_MAX_CLASSES]
    curve_classes = [1] if len(names) == 2 else sorted(most_frequent.tolist())
    matrix_classes = [0, 1] if len(names) == 2 else curve_classes
    return {
        "runs": [
            {"name": run.name, "setting": report.settings.index(setting), "folds": setting.has_folds}
            for run, setting in zip(runs, report.compared, strict=False)
        ],
        "classes": names,
        "curve_classes": curve_classes,
        "matrix_classes": matrix_classes,
        "examples": len(gold),
        "results": [
            {
                "confusion": confusion_matrix(gold, run.answers.predicted, labels=matrix_classes).tolist(),
                "by_class": [class_curves(run.answers, label, counts, groups is not None) for label in curve_classes],
            }
            for run in predictions
        ],
        "slices": _slices(report, predictions[0], texts),
        "pairs": _disagreements(predictions, texts, why) if with_sentences else _disagreements(predictions, None, None),
    }


def median_repetition(setting: Setting, metric: str) -> list[Run]:
    """Return the median run by the metric, or all folds of the median seed; the better one of two."""
    repetitions = _repetitions(setting)
    defined = [runs for runs in repetitions if all(run.figures.get(metric) is not None for run in runs)]
    return sorted(defined, key=lambda runs: fmean(run.figures[metric] or 0.0 for run in runs))[len(defined) // 2]


def _repetitions(setting: Setting) -> list[list[Run]]:
    """Return the runs of each seed: one, or all folds."""
    return setting.by_seed() if setting.has_folds else [[run] for run in setting.runs]


def _read_predictions(repetition: Sequence[Run], metric: str) -> Predictions:
    folds = [Predictions.of(run, metric) for run in repetition]
    return folds[0] if len(folds) == 1 else Predictions.of_folds(folds, split_of(metric))


def _slices(report: ComparisonReport, predictions: Predictions, texts: PairTexts | None) -> dict[str, Any] | None:
    """Compare the first two compared settings by slice of the pairs."""
    if report.tests is None:
        return None
    settings = report.compared[:2] if report.baseline is None else report.compared[1::-1]  # minus the baseline
    first, second = (
        [_read_predictions(one, report.metric).answers for one in _repetitions(setting)] for setting in settings
    )
    sentences, columns = (None, None) if texts is None else (texts.sentences, texts.columns)
    rows, choices = predictions.rows, report.tests.comparisons
    differences = slice_differences(first, second, rows.classes, sentences, rows.groups, columns, choices)
    return {
        "settings": [report.settings.index(setting) for setting in settings],
        "rows": [
            [*([text, chinese(text)] for text in (one.name, str(one.pairs), one.value, one.interval)), [one.p, one.p]]
            for one in differences
        ],
        "significant": [one.is_significant for one in differences],
    }


def _disagreements(predictions: Sequence[Predictions], texts: PairTexts | None, why: Message | None) -> dict[str, Any]:
    """Return the pairs for whose true label the runs' probabilities differ most."""
    gold = predictions[0].answers.gold
    probabilities = np.stack(
        [run.answers.probabilities[np.arange(len(gold)), gold] for run in predictions]
    )  # (runs, N)
    spread = probabilities.max(axis=0) - probabilities.min(axis=0)
    rows = np.sort(np.argsort(-spread, kind="stable")[:MAX_PAIRS])
    return {
        "ids": [str(predictions[0].rows.ids[row]) for row in rows],
        "gold": gold[rows].tolist(),
        "probabilities": base64_array(probabilities[:, rows]),
        "predicted": base64_array(np.stack([run.answers.predicted[rows] for run in predictions]), "u2"),
        "sentences": None if texts is None else [texts.sentences[row] for row in rows],
        "why": why,
    }
