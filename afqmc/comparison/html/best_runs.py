"""A few runs looked at closely: confusion, precision-recall, ROC and calibration, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, precision_recall_curve, roc_curve

from afqmc.comparison.html.json_embedding import packed
from afqmc.comparison.html.pair_texts import sentences
from afqmc.comparison.report import Report
from afqmc.comparison.wording import split_of
from afqmc.evaluation.metrics import log_odds_of
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import Array, LabelledPredictions
from afqmc.results.runs import Run
from afqmc.results.settings import Setting

RUNS = 8  # as many as colours can be told apart
PAIRS = 5000  # in the table of disagreements
_CLASSES = 12  # with a curve or a row of their own
_POINTS = 200  # a curve, as wide as it is drawn
_BINS = 10
_DIGITS = 4


def closer(report: Report, with_sentences: bool) -> dict[str, Any] | None:
    """What the page shows of the median run of each of the best settings; None where no run can be compared."""
    repeats = [median(setting, report.metric) for setting in report.compared[:RUNS]]
    runs, found = [repeat[0] for repeat in repeats], [_answered(repeat, report.metric) for repeat in repeats]
    if not found:
        return None
    gold, names = found[0].answers.gold, found[0].rows.classes
    commonest = np.argsort(-np.bincount(gold, minlength=len(names)), kind="stable")[:_CLASSES]
    classes = [1] if len(names) == 2 else sorted(commonest.tolist())
    return {
        "runs": [
            {"name": run.name, "setting": report.settings.index(setting), "folds": setting.has_folds}
            for run, setting in zip(runs, report.compared, strict=False)
        ],
        "classes": names,
        "drawn": classes,
        "shown": [0, 1] if len(names) == 2 else classes,
        "examples": len(gold),
        "of": [_figures(one.answers, classes, [0, 1] if len(names) == 2 else classes) for one in found],
        "pairs": _disagreements(runs[0], split_of(report.metric), found, with_sentences),
    }


def median(setting: Setting, metric: str) -> list[Run]:
    """The run in the middle by the metric, or the folds of the seed there; the better one of two."""
    repeats = setting.by_seed() if setting.has_folds else [[run] for run in setting.runs]
    known = [repeat for repeat in repeats if all(run.figures.get(metric) is not None for run in repeat)]
    return sorted(known, key=lambda repeat: fmean(run.figures[metric] or 0.0 for run in repeat))[len(known) // 2]


def _answered(repeat: Sequence[Run], metric: str) -> Predictions:
    parts = [Predictions.of(run, metric) for run in repeat]
    return parts[0] if len(parts) == 1 else Predictions.of_folds(parts, split_of(metric))


def _figures(answers: LabelledPredictions, drawn: Sequence[int], shown: Sequence[int]) -> dict[str, Any]:
    return {
        "confusion": confusion_matrix(answers.gold, answers.predicted, labels=list(shown)).tolist(),
        "by_class": [_of_class(answers, number) for number in drawn],
    }


def _of_class(answers: LabelledPredictions, number: int) -> dict[str, Any] | None:
    """Curves of one class against the rest; None where there is but one of the two."""
    is_it, probability, odds = (
        answers.gold == number, answers.probabilities[:, number], log_odds_of(answers.logits)[:, number],
    )  # fmt: skip
    if is_it.all() or not is_it.any():
        return None
    false, true, _ = roc_curve(is_it, odds)
    precision, recall, _ = precision_recall_curve(is_it, odds, drop_intermediate=True)
    happened, said = calibration_curve(is_it, probability, n_bins=_BINS, strategy="quantile")
    return {
        "roc": _points(false, true),
        "pr": _points(recall, precision),
        "calibration": _points(said, happened),
        "brier": round(float(brier_score_loss(is_it, probability)), _DIGITS),
        "base": round(float(is_it.mean()), _DIGITS),
    }


def _points(x: Array, y: Array) -> list[list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(int))
    return [x[kept].round(_DIGITS).tolist(), y[kept].round(_DIGITS).tolist()]


def _disagreements(run: Run, split: str, found: Sequence[Predictions], with_sentences: bool) -> dict[str, Any]:
    """The pairs to which the runs give the most different probabilities of being what they are."""
    gold = found[0].answers.gold
    given = np.stack([one.answers.probabilities[np.arange(len(gold)), gold] for one in found])  # (runs, N)
    kept = np.sort(np.argsort(given.min(axis=0) - given.max(axis=0), kind="stable")[:PAIRS])
    texts, why = sentences(run, split, found[0], kept) if with_sentences else (None, None)
    return {
        "ids": [str(found[0].rows.ids[row]) for row in kept],
        "gold": gold[kept].tolist(),
        "given": packed(given[:, kept]),
        "said": packed(np.stack([one.answers.predicted[kept] for one in found]), "i4"),
        "sentences": texts,
        "why": why,
    }
