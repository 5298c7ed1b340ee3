"""Write the caveats: what readers need to know to interpret the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from afqmc.comparison.evaluations import evaluation_values
from afqmc.comparison.wording import display_name, folds_column, format_size, split_of
from afqmc.sweeps.plan import Sweep
from afqmc.utils.language import join_messages, msg

if TYPE_CHECKING:
    from afqmc.comparison.pairwise import PairwiseTests
    from afqmc.comparison.report import ComparisonReport

_MAX_LISTED = 8  # names in a sentence
_NEGLIGIBLE = 1e-6  # selection bias below this is not mentioned


def caveats(report: ComparisonReport, top: int) -> Iterator[str]:
    """Yield all caveats; ``top`` is the number of settings that were to be compared."""
    repeats = [run.name for setting in report.settings for run in setting.repeats]
    if repeats:
        runs = _shorten_list(repeats)
        yield msg("ignored, because another run has the same settings, seed and fold: {runs}", runs=runs)
    yield from _suspicious_runs(report)
    if report.defaulted_keys:
        yield msg(
            "these keys are missing from some configs, which may be older; their default is assumed: {keys}",
            keys=_shorten_list(report.defaulted_keys),
        )
    if len(set(report.data_index.values())) > 1:
        yield msg(
            "the settings were evaluated on different {split} data, numbered in the column data: ranks are valid "
            "within the same data only, and only settings on data 1 are compared",
            split=split_of(report.metric),
        )
    if len(report.settings) > top:
        yield msg(
            "only the best {top} of {settings} settings are compared; --top {settings} compares all",
            top=top,
            settings=len(report.settings),
        )
    if report.folds_metric:
        yield _combined_folds(split_of(report.metric))
    if report.tests is not None:
        yield from _test_caveats(report, report.tests)
    elif len(report.settings) == 1:
        yield msg("there is only one setting: nothing to compare it with")
    yield from _race_caveats(report)
    yield from _environment_differences(report)
    yield from _selection_caveats(report)


def _race_caveats(report: ComparisonReport) -> Iterator[str]:
    """Explain what it means that the results decided which settings of a race got more seeds."""
    sweeps = dict.fromkeys(Sweep(run.path.parent) for setting in report.settings for run in setting.runs)
    races = [sweep for sweep in sweeps if sweep.metadata().get("sweeper") == "race"]
    if races and report.tests is not None:
        yield msg(
            "{races}: a race, which gave more seeds to the settings that looked good. Its own levels allow for its "
            "looks at the results: use race.json to say which setting is better. The intervals and p-values here do "
            "not allow for them, and the mean of a setting that was dropped is too low on average",
            races=_shorten_list([sweep.path.name for sweep in races]),
        )


def _shorten_list(names: Sequence[str]) -> str:
    listed = join_messages(names[:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return msg("{names} and {more} more", names=listed, more=more) if more > 0 else listed


def _suspicious_runs(report: ComparisonReport) -> Iterator[str]:
    """List the settings with runs whose metric is undefined, or that predict a single label."""
    for problem, has_problem in (
        (msg("{metric} is undefined", metric=report.metric), lambda run: run.figures.get(report.metric) is None),
        (msg("(nearly) every pair is predicted to have the same label"), lambda run: run.collapsed_label is not None),
    ):
        affected = [
            msg("{name} in {count} of {n} runs", name=display_name(setting, report.settings), count=count, n=n)
            for setting in report.settings
            if (n := len(setting.runs)) and (count := sum(map(has_problem, setting.runs)))
        ]
        if affected:
            yield msg("{problem}: {where}", problem=problem, where=_shorten_list(affected))


def _combined_folds(split: str) -> str:
    held_out = msg("predicts every pair with the fold that held it out")
    mean = msg("averages the predictions of the folds for each pair")
    return msg(
        "settings with folds: the folds of a seed are combined into one model that {combination}. Its metric is in the "
        "column {column}, and settings are compared by it; mean ± sd is over runs. The folds share most of their "
        "training pairs, so other training pairs may change more than an interval suggests",
        combination=held_out if split == "dev" else mean,
        column=folds_column(split),
    )


def _test_caveats(report: ComparisonReport, tests: PairwiseTests) -> Iterator[str]:
    if tests.comparisons > 1:
        if report.baseline is not None:
            yield msg(
                "confidence intervals and p-values of the findings hold for all {pairs} comparisons with {baseline} "
                "together (Bonferroni)",
                pairs=tests.comparisons,
                baseline=display_name(report.baseline, report.settings),
            )
        else:
            yield msg(
                "confidence intervals and p-values of the findings hold for all {pairs} pairs of {settings} settings "
                "together (Bonferroni)",
                pairs=tests.comparisons,
                settings=len(report.compared),
            )
        if any(comparison.mcnemar for comparison in report.comparisons):
            yield msg("McNemar's p-values are not adjusted for the number of pairs")
    if report.are_pairs_connected:
        yield msg(
            "nearly all pairs are connected by shared sentences, so they are drawn one by one: confidence intervals "
            "are too narrow for pairs of other sentences"
        )
    if len(report.compared) > 2 and report.baseline is None:
        possible = report.possible_best
        yield msg(
            "{count} of {settings} settings may be the best, since no other one is significantly better: {names}",
            count=len(possible),
            settings=len(report.compared),
            names=_shorten_list([display_name(setting, report.settings) for setting in possible]),
        )
    yield from _power_caveats(report, tests.examples)
    seeds = [comparison.difference.seeds for comparison in report.comparisons if comparison.difference.over_seeds]
    if any(2 in pair for pair in seeds):
        yield msg(
            "two seeds hardly show how much seeds vary: an interval that is based on two may miss the true difference "
            "more often than 1 time in 20; a third seed helps a lot"
        )
    if len(seeds) < len(report.comparisons):
        yield msg(
            "results that involve a setting with a single seed are about these very runs; other seeds may reverse them"
        )


def _power_caveats(report: ComparisonReport, examples: int) -> Iterator[str]:
    differences = [comparison.difference for comparison in report.comparisons]
    detectable = [difference.detectable for difference in differences if difference.error]
    if not detectable:
        return
    low, high = format_size(report.metric, min(detectable)), format_size(report.metric, max(detectable))
    size_range = msg("{low} to {high} (depending on the pair of settings)", low=low.removesuffix(" points"), high=high)
    yield msg(
        "with these seeds and {examples:,} {split} pairs, a difference of {size} is detected with a power of 80%",
        examples=examples,
        split=split_of(report.metric),
        size=low if low == high else size_range,
    )
    if any(difference.error and difference.value and not difference.significant for difference in differences):
        yield msg(
            "the seeds and pairs needed are for a cautious estimate of each difference, the lower end of a one-sided "
            "60% interval; a smaller difference needs more"
        )


def _environment_differences(report: ComparisonReport) -> Iterator[str]:
    """List differences between the compared runs that their configs do not show."""
    environments = [run.environment() for setting in report.compared for run in setting.runs]
    for fact in dict.fromkeys(fact for environment in environments for fact in environment):
        values = sorted({environment[fact] for environment in environments if fact in environment})
        if len(values) > 1:
            yield msg("the compared runs differ in {fact}: {values}", fact=msg(fact), values=", ".join(values))


def _selection_caveats(report: ComparisonReport) -> Iterator[str]:
    """Explain how choosing weights and settings on a split biases the metrics on it."""
    if not report.settings:
        return
    split = split_of(report.metric)
    if split != "dev":
        yield msg(
            "weights were selected on dev, not on {split}; once a row of this table is selected by {split}, {split} is "
            "no longer unseen data",
            split=split,
        )
        return
    biases = [*_weight_selection(report), *_setting_selection(report)]
    if biases:
        yield msg(
            "{biases}. Expect worse metrics on new pairs: to publish a number, evaluate the selected run once on pairs "
            "that were used for nothing else",
            biases=reduce(lambda a, b: msg("{a}; {b}", a=a, b=b), biases),
        )


def _weight_selection(report: ComparisonReport) -> Iterator[str]:
    runs = [run for setting in report.compared or report.settings[:1] for run in setting.runs]
    counts = sorted({count for run in runs if (count := len(evaluation_values(run, str(run.monitor))))})
    if counts == [1]:
        return
    number = msg("several") if not counts else f"{counts[0]}"
    if len(counts) > 1:
        number = msg("{low} to {high}", low=counts[0], high=counts[-1])
    yield msg(
        "each run's weights are the best of {number} evaluations on dev by {monitored}, which makes its dev metrics "
        "optimistic",
        number=number,
        monitored=", ".join(sorted({str(run.monitor) for run in runs})),
    )


def _setting_selection(report: ComparisonReport) -> Iterator[str]:
    count = sum(index == 1 for index in report.data_index.values())
    if count == 1:
        return
    caveat = msg(
        "row 1 is the best of {settings} settings on the same dev pairs, which makes it look better than it is",
        settings=count,
    )
    bias = report.selection_bias
    if bias is None or bias[1] <= _NEGLIGIBLE:
        yield caveat
        return
    first = report.settings[0]
    observed = report.folds_metric.get(first, first.mean(report.metric))
    assert observed is not None
    low, high = (format_size(report.metric, one) for one in bias)
    corrected = [f"{observed - (one if report.higher_is_better else -one):.4f}" for one in bias]
    if bias[0] == bias[1]:
        yield msg("{caveat} by about {size}: corrected, it is {value}", caveat=caveat, size=low, value=corrected[0])
    else:
        yield msg(
            "{caveat}. If seeds vary little, it looks better by about {low}: corrected, it is {value}. If they vary "
            "much, it looks better by about {high}: corrected, it is {other}. Single runs do not show how "
            "much seeds vary",
            caveat=caveat,
            low=low,
            high=high,
            value=corrected[0],
            other=corrected[1],
        )
