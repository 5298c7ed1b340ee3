"""Details of the best settings' median runs: confusion, PR, ROC and calibration curves, and their disagreements."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from afqmc.comparison.html.json_embedding import base64_array
from afqmc.comparison.html.pair_texts import read_sentences
from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.slices import slice_differences
from afqmc.comparison.wording import split_of
from afqmc.evaluation.metrics import log_odds_of
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import Array, LabelledPredictions
from afqmc.results.runs import Run
from afqmc.results.settings import Setting
from afqmc.utils.language import chinese

MAX_RUNS = 8  # as many as there are distinguishable colours
MAX_PAIRS = 5000  # in the table of disagreements
_MAX_CLASSES = 12  # with a curve, and a row of the confusion matrix
_MAX_POINTS = 200  # per curve, about its width in pixels
_BINS = 10  # of the calibration curve
_DIGITS = 4


def best_runs(report: ComparisonReport, with_sentences: bool) -> dict[str, Any] | None:
    """Return the details of the median run of each of the best settings; None if no settings can be compared."""
    repetitions = [median_repetition(setting, report.metric) for setting in report.compared[:MAX_RUNS]]
    runs = [repetition[0] for repetition in repetitions]
    predictions = [_read_predictions(repetition, report.metric) for repetition in repetitions]
    if not predictions:
        return None
    gold, names = predictions[0].answers.gold, predictions[0].rows.classes
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
        "results": [_results(run.answers, curve_classes, matrix_classes) for run in predictions],
        "slices": _slices(report, predictions[0], runs[0]),
        "pairs": _disagreements(runs[0], split_of(report.metric), predictions, with_sentences),
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


def _slices(report: ComparisonReport, predictions: Predictions, run: Run) -> dict[str, Any] | None:
    """Compare the first two compared settings by slice of the pairs."""
    if len(report.compared) < 2:
        return None
    split = split_of(report.metric)
    settings = report.compared[:2] if report.baseline is None else report.compared[1::-1]  # minus the baseline
    first, second = (
        [_read_predictions(one, report.metric).answers for one in _repetitions(setting)] for setting in settings
    )
    sentences, _ = read_sentences(run, split, predictions, range(len(predictions.rows.ids)))
    differences = slice_differences(first, second, predictions.rows.classes, sentences, predictions.rows.groups)
    return {
        "settings": [report.settings.index(setting) for setting in settings],
        "rows": [
            [*([text, chinese(text)] for text in (one.name, str(one.pairs), one.value, one.interval)), [one.p, one.p]]
            for one in differences
        ],
        "significant": [one.is_significant for one in differences],
    }


def _results(
    answers: LabelledPredictions, curve_classes: Sequence[int], matrix_classes: Sequence[int]
) -> dict[str, Any]:
    return {
        "confusion": confusion_matrix(answers.gold, answers.predicted, labels=list(matrix_classes)).tolist(),
        "by_class": [_class_curves(answers, label) for label in curve_classes],
    }


def _class_curves(answers: LabelledPredictions, label: int) -> dict[str, Any] | None:
    """Return the curves of one class against the rest; None if all or none of the examples belong to it."""
    is_positive = answers.gold == label
    probability, log_odds = answers.probabilities[:, label], log_odds_of(answers.logits)[:, label]
    if is_positive.all() or not is_positive.any():
        return None
    false_positive_rate, true_positive_rate, _ = roc_curve(is_positive, log_odds)
    precision, recall, _ = precision_recall_curve(is_positive, log_odds, drop_intermediate=True)
    observed, predicted = calibration_curve(is_positive, probability, n_bins=_BINS, strategy="quantile")
    pairs = len(probability) / len(observed)  # of each bin
    low, high = proportion_confint(observed * pairs, pairs, method="wilson")
    return {
        "roc": _points(false_positive_rate, true_positive_rate),
        "pr": _points(recall, precision),
        "calibration": _points(predicted, observed),
        "calibration_interval": _points(low, high),
        "brier": round(float(brier_score_loss(is_positive, probability)), _DIGITS),
        "base_rate": round(float(is_positive.mean()), _DIGITS),
    }


def _points(x: Array, y: Array) -> list[list[float]]:
    rows = np.unique(np.linspace(0, len(x) - 1, _MAX_POINTS).round().astype(int))
    return [x[rows].round(_DIGITS).tolist(), y[rows].round(_DIGITS).tolist()]


def _disagreements(run: Run, split: str, predictions: Sequence[Predictions], with_sentences: bool) -> dict[str, Any]:
    """Return the pairs for whose true label the runs' probabilities differ most."""
    gold = predictions[0].answers.gold
    probabilities = np.stack(
        [run.answers.probabilities[np.arange(len(gold)), gold] for run in predictions]
    )  # (runs, N)
    spread = probabilities.max(axis=0) - probabilities.min(axis=0)
    rows = np.sort(np.argsort(-spread, kind="stable")[:MAX_PAIRS])
    texts, why = read_sentences(run, split, predictions[0], rows) if with_sentences else (None, None)
    return {
        "ids": [str(predictions[0].rows.ids[row]) for row in rows],
        "gold": gold[rows].tolist(),
        "probabilities": base64_array(probabilities[:, rows]),
        "predicted": base64_array(np.stack([run.answers.predicted[rows] for run in predictions]), "i4"),
        "sentences": texts,
        "why": why,
    }
