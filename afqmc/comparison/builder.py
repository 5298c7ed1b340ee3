"""builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from afqmc.comparison import wording as words
from afqmc.comparison.bootstrap import PairwiseTests, resample
from afqmc.comparison.caveats import caveats
from afqmc.comparison.dev_data import data_groups
from afqmc.comparison.mcnemar import mcnemar
from afqmc.comparison.report import Comparison, Report
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import MEASURES, resampled_metric
from afqmc.results.runs import Run
from afqmc.results.settings import Setting, fill_defaults, group_by_setting, missing_folds, varying_keys
from afqmc.results.translatable import message_of, msg
from afqmc.utils.errors import InputError, did_you_mean


def build(runs: Sequence[Run], metric: str | None, top: int) -> Report:
    """Rank the runs by ``metric``, or by what they monitored; compare the best ``top`` settings.

    Raises:
        InputError: for a metric that they have not.
    """
    complete, assumed = fill_defaults([run for run in runs if run.is_complete])
    unfinished = [run for run in runs if not run.is_complete]
    metric = _metric(complete, metric)
    read = lru_cache(maxsize=top)(lambda setting: _predictions(setting, metric))  # those compared are read once
    ranked = _ranked(group_by_setting(complete), metric)
    data_of = data_groups(ranked, metric, top, read)
    settings = sorted(ranked, key=data_of.__getitem__)
    compared, predictions, refused = _comparable(settings, data_of, metric, top, read)
    family, comparisons = None, []
    if len(compared) > 1:
        number = [place for place, of_runs in enumerate(predictions) for _ in of_runs]
        answers = [one.answers for of_runs in predictions for one in of_runs]
        family = PairwiseTests(resample(metric.partition("/")[2], answers), number)
        comparisons = [
            _compare(settings, compared, predictions, family, metric, second) for second in range(1, len(compared))
        ]
    report = Report(
        metric, varying_keys(complete), settings, data_of, unfinished, compared,
        _together(compared, predictions, metric),
        family, comparisons, refused, assumed, [],
    )  # fmt: skip
    return replace(report, notes=list(caveats(report, top)))


def _metric(runs: Sequence[Run], asked: str | None) -> str:
    legal = {key for run in runs for key in run.figures if key.partition("/")[2] in MEASURES}
    if asked is not None:
        if runs and asked not in legal:
            raise InputError(f"--metric {asked}: no run has it{did_you_mean(asked, legal)}")
        return asked
    monitored = sorted({str(run.monitor) for run in runs})
    if len(monitored) > 1:
        raise InputError(f"the runs monitored different metrics ({', '.join(monitored)}): choose one with --metric")
    return monitored[0] if monitored else "dev/accuracy"


def _ranked(settings: Sequence[Setting], metric: str) -> list[Setting]:
    sign = -1 if higher_is_better(metric) else 1

    def place(setting: Setting) -> tuple[bool, float]:
        mean = setting.mean(metric)
        return mean is None, 0.0 if mean is None else sign * mean

    return sorted(settings, key=place)


def _comparable(
    ranked: Sequence[Setting],
    data_of: dict[Setting, int],
    metric: str,
    top: int,
    read: Callable[[Setting], list[Predictions]],
) -> tuple[list[Setting], list[list[Predictions]], list[tuple[Setting, str]]]:
    """Settings all of whose runs answered the same, and their predictions; the others of the top, with the reason."""
    found: list[tuple[Setting, list[Predictions]]] = []
    refused: list[tuple[Setting, str]] = []
    for setting in ranked[:top]:
        try:
            predictions = read(setting)
        except InputError as error:
            refused.append((setting, message_of(error)))
            continue
        if found and data_of[setting] != data_of[found[0][0]]:
            unlike = found[0][1][0].differs_from(predictions[0])
            refused.append((setting, _other_data(metric, words.display_name(found[0][0], ranked), unlike)))
        else:
            found.append((setting, predictions))
    return [setting for setting, _ in found], [predictions for _, predictions in found], refused


def _predictions(setting: Setting, metric: str) -> list[Predictions]:
    """One a run; where runs are folds, one a seed, its folds together."""
    found: list[Predictions] = []
    groups = setting.by_seed() if setting.has_folds else [[run] for run in setting.runs]
    for runs in groups:
        found.append(_of_seed(runs, metric) if setting.has_folds else _of_run(runs[0], metric))
        if unlike := found[0].differs_from(found[-1]):
            told = _other_data(metric, setting.runs[0].name, unlike)
            raise InputError(msg("{run}: {why}", run=runs[0].name, why=told))
    return found


def _other_data(metric: str, name: str, unlike: str | None) -> str:
    return msg("other {split} data than {name}: {how}", split=words.split_of(metric), name=name, how=unlike)


def _of_run(run: Run, metric: str) -> Predictions:
    try:
        return Predictions.of(run, metric)
    except InputError as error:
        raise InputError(msg("{run}: {why}", run=run.name, why=message_of(error))) from error


def _of_seed(runs: list[Run], metric: str) -> Predictions:
    """All folds of one seed: with some alone, other settings would be asked about other pairs."""
    if absent := missing_folds(runs):
        raise InputError(msg("seed {seed}: {why}", seed=runs[0].seed, why=absent))
    parts = [_of_run(run, metric) for run in runs]
    try:
        return Predictions.of_folds(parts, words.split_of(metric))
    except InputError as error:
        raise InputError(msg("seed {seed}: {why}", seed=runs[0].seed, why=message_of(error))) from error


def _together(compared: list[Setting], predictions: list[list[Predictions]], metric: str) -> dict[Setting, float]:
    found = {}
    for setting, of_seeds in zip(compared, predictions, strict=True):
        if setting.has_folds:
            answers = [one.answers for one in of_seeds]
            whole = np.ones((len(answers[0].gold), 1), dtype=np.float32)
            found[setting] = float(resampled_metric(metric.partition("/")[2], answers, whole).mean())
    return found


def _compare(
    settings: list[Setting],
    compared: list[Setting],
    predictions: list[list[Predictions]],
    family: PairwiseTests,
    metric: str,
    second: int,
) -> Comparison:
    difference = family.difference(0, second)
    single = difference.seeds == (1, 1)
    split = mcnemar(predictions[0][0].answers, predictions[second][0].answers) if single else None
    names = words.display_name(compared[0], settings), words.display_name(compared[second], settings)
    folded = compared[0].has_folds or compared[second].has_folds
    sentence = words.sentence(*names, difference, metric, family.examples, folded)
    if split is not None and difference.error and metric.endswith("/accuracy"):
        sentence = words.with_mcnemar(sentence, *names, split)
    return Comparison(compared[0], compared[second], difference, split, sentence)
