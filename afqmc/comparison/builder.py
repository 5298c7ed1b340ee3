"""Build the report: rank the settings, and test the best ones against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from afqmc.comparison.bootstrap import resample
from afqmc.comparison.caveats import caveats
from afqmc.comparison.churn import Churn, churn, churn_sentence
from afqmc.comparison.dev_data import data_groups
from afqmc.comparison.evaluations import EvaluationCounts, choice_corrections
from afqmc.comparison.mcnemar import mcnemar
from afqmc.comparison.pairwise import PairwiseTests
from afqmc.comparison.published import PublishedResults, published_sentences
from afqmc.comparison.report import Comparison, ComparisonReport
from afqmc.comparison.wording import (
    baseline_sentence,
    difference_sentence,
    display_name,
    split_of,
    with_collapsed,
    with_correction,
    with_cost,
    with_mcnemar,
    with_unfinished,
)
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import MEASURES, drawable_groups, resampled_metric
from afqmc.results.runs import Run, reject_pretraining
from afqmc.results.settings import BASELINE, Setting, fill_defaults, group_by_setting, missing_folds, varying_keys
from afqmc.utils.errors import InputError, did_you_mean
from afqmc.utils.language import message_of, msg


def build(
    runs: Sequence[Run],
    metric: str | None,
    top: int,
    baseline: str | None = None,
    published: PublishedResults | None = None,
) -> ComparisonReport:
    """Rank the runs' settings by ``metric``, or by the metric they monitored; compare the best ``top`` settings.

    The best setting is compared with each other one; or the setting named ``baseline``, or by ``sweep.baseline`` of all
    runs.

    Raises:
        InputError: if no run has the metric, the runs monitored different ones, one is a pretraining, or there is no
            such baseline.
    """
    reject_pretraining(runs)
    complete, defaulted_keys = fill_defaults([run for run in runs if run.is_complete])
    metric = _choose_metric(complete, metric)
    read = lru_cache(maxsize=top)(lambda setting: _predictions(setting, metric))  # used for grouping and for the tests
    keys = varying_keys(complete)
    ranked = _rank(group_by_setting(complete, keys), metric)
    data_index = data_groups(ranked, metric, top, read)
    settings = sorted(ranked, key=data_index.__getitem__)
    reference = _baseline(settings, baseline)
    candidates = settings[:top]
    if reference is not None:
        candidates = [reference, *(setting for setting in candidates if setting is not reference)]
    compared, predictions, incomparable = _comparable(settings, candidates, data_index, metric, read)
    unfinished = [run for run in runs if not run.is_complete]
    tests, comparisons = None, []
    evaluations = [EvaluationCounts.of(setting, metric) for setting in compared]
    if len(compared) > 1:
        tests = _tests(predictions, evaluations, metric, reference is not None)
        compare = _Comparer(settings, compared, predictions, tests, evaluations, unfinished, metric)
        comparisons = [compare(other, reference is not None) for other in range(1, len(compared))]
    report = ComparisonReport(
        metric=metric,
        keys=keys,
        settings=settings,
        data_index=data_index,
        unfinished=unfinished,
        compared=compared,
        folds_metric=_folds_metric(compared, predictions, metric),
        tests=tests,
        comparisons=comparisons,
        incomparable=incomparable,
        defaulted_keys=defaulted_keys,
        caveats=[],
        baseline=reference,
        are_pairs_connected=bool(predictions) and _are_connected(predictions[0][0].rows.groups),
    )
    sentences = _published(report, predictions, published) if published is not None else []
    return replace(report, caveats=list(caveats(report, top)), published=sentences)


def _are_connected(groups: np.ndarray | None) -> bool:
    """Return whether pairs share sentences, but in too few groups to be drawn."""
    return groups is not None and drawable_groups(groups) is None


def _published(
    report: ComparisonReport, predictions: list[list[Predictions]], published: PublishedResults
) -> list[str]:
    """Compare the best setting, or the baseline and the best one, with published results."""
    best = [*dict.fromkeys([report.compared[0], *report.settings[:1]])]
    if not best or not predictions:
        return []
    examples = len(predictions[0][0].rows.ids)
    return published_sentences(report.settings, best, report.metric, examples, published)


def _baseline(settings: Sequence[Setting], requested: str | None) -> Setting | None:
    """Return the setting that all others are compared with, or None."""
    names = {setting.name: setting for setting in settings}
    if requested is not None:
        name = _as_named(requested)
        if name not in names:
            raise InputError(f"--baseline {requested}: no setting has that name{did_you_mean(name, names)}")
        return names[name]
    configured = {run.config.get(BASELINE) for setting in settings for run in setting.runs}
    return names.get(str(configured.pop())) if len(configured) == 1 else None


def _as_named(text: str) -> str:
    """Return ``lr=1e-5 seed=1`` with numbers as they are in the names of settings."""
    parts = []
    for part in text.split(" "):
        key, equals, value = part.partition("=")
        with suppress(ValueError):
            value = value if value.lstrip("-").isdecimal() else f"{float(value):g}"
        parts.append(f"{key}{equals}{value}")
    return " ".join(parts)


def _choose_metric(runs: Sequence[Run], requested: str | None) -> str:
    allowed = {key for run in runs for key in run.figures if key.partition("/")[2] in MEASURES}
    if requested is not None:
        if runs and requested not in allowed:
            raise InputError(f"--metric {requested}: no run has it{did_you_mean(requested, allowed)}")
        return requested
    monitored = sorted({str(run.monitor) for run in runs})
    if len(monitored) > 1:
        raise InputError(f"the runs monitored different metrics ({', '.join(monitored)}): choose one with --metric")
    return monitored[0] if monitored else "dev/accuracy"


def _rank(settings: Sequence[Setting], metric: str) -> list[Setting]:
    sign = -1 if higher_is_better(metric) else 1

    def sort_key(setting: Setting) -> tuple[bool, float]:
        mean = setting.mean(metric)
        return mean is None, 0.0 if mean is None else sign * mean

    return sorted(settings, key=sort_key)


def _comparable(
    settings: Sequence[Setting],
    candidates: Sequence[Setting],
    data_index: dict[Setting, int],
    metric: str,
    read: Callable[[Setting], list[Predictions]],
) -> tuple[list[Setting], list[list[Predictions]], list[tuple[Setting, str]]]:
    """Return the candidates that predict the same examples, their predictions, and the others with why."""
    comparable: dict[Setting, list[Predictions]] = {}
    incomparable: list[tuple[Setting, str]] = []
    for setting in candidates:
        try:
            predictions = read(setting)
        except InputError as error:
            incomparable.append((setting, message_of(error)))
            continue
        best = next(iter(comparable), setting)
        if data_index[setting] == data_index[best]:
            comparable[setting] = predictions
        else:
            how = comparable[best][0].differs_from(predictions[0])
            incomparable.append((setting, _other_data(metric, display_name(best, settings), how)))
    return list(comparable), list(comparable.values()), incomparable


def _predictions(setting: Setting, metric: str) -> list[Predictions]:
    """Read the predictions of each run, or of each seed with its folds combined.

    Raises:
        InputError: if they cannot be read, or belong to different examples.
    """
    predictions: list[Predictions] = []
    for runs in setting.by_seed() if setting.has_folds else [[run] for run in setting.runs]:
        predictions.append(_seed_predictions(runs, metric) if setting.has_folds else _run_predictions(runs[0], metric))
        if how := predictions[0].differs_from(predictions[-1]):
            raise InputError(msg("{run}: {why}", run=runs[0].name, why=_other_data(metric, setting.runs[0].name, how)))
    return predictions


def _other_data(metric: str, name: str, how: str | None) -> str:
    return msg("other {split} data than {name}: {how}", split=split_of(metric), name=name, how=how)


def _run_predictions(run: Run, metric: str) -> Predictions:
    try:
        return Predictions.of(run, metric)
    except InputError as error:
        raise InputError(msg("{run}: {why}", run=run.name, why=message_of(error))) from error


def _seed_predictions(runs: list[Run], metric: str) -> Predictions:
    """Combine the folds of a seed. All are required, so that all settings predict the same pairs."""
    if absent := missing_folds(runs):
        raise InputError(msg("seed {seed}: {why}", seed=runs[0].seed, why=absent))
    folds = [_run_predictions(run, metric) for run in runs]
    try:
        return Predictions.of_folds(folds, split_of(metric))
    except InputError as error:
        raise InputError(msg("seed {seed}: {why}", seed=runs[0].seed, why=message_of(error))) from error


def _folds_metric(compared: list[Setting], predictions: list[list[Predictions]], metric: str) -> dict[Setting, float]:
    metrics = {}
    for setting, seeds in zip(compared, predictions, strict=True):
        if setting.has_folds:
            answers = [seed.answers for seed in seeds]
            once = np.ones((len(answers[0].gold), 1), dtype=np.float32)  # each example once: no resampling
            metrics[setting] = float(resampled_metric(metric.partition("/")[2], answers, once).mean())
    return metrics


def _tests(
    predictions: list[list[Predictions]], evaluations: Sequence[EvaluationCounts], metric: str, has_baseline: bool
) -> PairwiseTests:
    """Test the settings; if their runs chose among unequal numbers of evaluations, correct for it."""
    answers = [repetition.answers for repetitions in predictions for repetition in repetitions]
    index = [setting for setting, repetitions in enumerate(predictions) for _ in repetitions]
    resampled = resample(metric.partition("/")[2], answers, groups=drawable_groups(predictions[0][0].rows.groups))
    tests = PairwiseTests(resampled, index, has_baseline)
    corrections = choice_corrections(evaluations, tests.run_variance, higher_is_better(metric))
    return tests if corrections is None else PairwiseTests(resampled, index, has_baseline, corrections)


@dataclass(frozen=True)
class _Comparer:
    """Compares the best setting, or the baseline, with another one."""

    settings: Sequence[Setting]
    compared: Sequence[Setting]
    predictions: Sequence[Sequence[Predictions]]
    tests: PairwiseTests
    evaluations: Sequence[EvaluationCounts]
    unfinished: Sequence[Run]
    metric: str

    def __call__(self, other: int, has_baseline: bool) -> Comparison:
        """Compare setting 0 with another one, given by its index."""
        first, second = self.compared[0], self.compared[other]
        difference = self.tests.difference(0, other)
        is_single = difference.seeds == (1, 1)
        answers = self.predictions[0][0].answers, self.predictions[other][0].answers
        test = mcnemar(*answers) if is_single else None
        names = display_name(first, self.settings), display_name(second, self.settings)
        counts = str(self.evaluations[0]), str(self.evaluations[other])
        has_folds = first.has_folds or second.has_folds
        if has_baseline:
            difference = difference.negated()
            plain = sentence = baseline_sentence(names[1], names[0], difference, self.metric, has_folds)
            sentence = with_correction(sentence, names[1], names[0], difference, counts[::-1], self.metric)
            sentence = with_cost(sentence, names[1], *_relative_cost(second, first))
        else:
            plain = sentence = difference_sentence(*names, difference, self.metric, has_folds)
            if test is not None and difference.error and self.metric.endswith("/accuracy"):
                sentence = with_mcnemar(sentence, *names, test)
            sentence = with_correction(sentence, *names, difference, counts, self.metric)
        collapsed = [
            (name, sum(run.collapsed_label is not None for run in setting.runs), len(setting.runs))
            for name, setting in zip(names, (first, second), strict=True)
        ]
        sentence = with_collapsed(sentence, collapsed)
        sentence = with_unfinished(
            sentence, [(names[0], self._unfinished(first)), (names[1], self._unfinished(second))]
        )
        flips = self._churn(0, other) if not has_baseline else self._churn(other, 0)
        changes = churn_sentence(*(names[::-1] if has_baseline else names), flips)
        has_remarks = sentence != plain or bool(difference.significant and difference.other_seeds)
        return Comparison(first, second, difference, test, sentence, flips, changes, has_remarks)

    def _churn(self, a: int, b: int) -> Churn:
        first, second = ([run.answers for run in self.predictions[index]] for index in (a, b))
        return churn(first, second, drawable_groups(self.predictions[0][0].rows.groups))

    def _unfinished(self, setting: Setting) -> int:
        """Count the runs of a setting without final metrics."""
        return sum(setting.has_config_of(run) for run in self.unfinished)


def _relative_cost(setting: Setting, baseline: Setting) -> tuple[float | None, float | None]:
    """Return time per training pair and peak memory of a setting, divided by those of the baseline.

    None with a single run: the speed of one run on a machine that does other work says little.
    """
    if min(len(setting.runs), len(baseline.runs)) < 2:
        return None, None
    speeds = baseline.mean_of("pairs_per_second"), setting.mean_of("pairs_per_second")
    memory = setting.mean_of("peak_memory_gib"), baseline.mean_of("peak_memory_gib")
    return tuple(a / b if a and b else None for a, b in (speeds, memory))  # type: ignore[return-value]
