"""What a reader must know to read the figures rightly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from afqmc.comparison.wording import display_name, folds_column, size, split_of
from afqmc.results.translatable import join_messages, msg
from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from afqmc.comparison.report import Report
    from afqmc.results.runs import Run

_LISTED = 8
_NOTHING = 1e-6  # of a metric: not worth a word


def caveats(report: Report, top: int) -> Iterator[str]:
    """What a reader must know to read the figures rightly."""
    runs = [(display_name(setting, report.settings), setting.runs) for setting in report.settings]
    repeats = [run.name for setting in report.settings for run in setting.repeats]
    if repeats:
        yield msg("not counted again, the same settings, seed and fold as another run: {runs}", runs=_some(repeats))
    for told, is_so in (
        (msg("{metric} is undefined", metric=report.metric), lambda run: run.figures.get(report.metric) is None),
        (msg("one label for (nearly) every pair"), lambda run: run.collapsed_onto is not None),
    ):
        counts = [(name, sum(map(is_so, of)), len(of)) for name, of in runs]
        found = [
            msg("{name} in {count} of {n} runs", name=name, count=count, n=n) for name, count, n in counts if count
        ]
        if found:
            yield msg("{told}: {where}", told=told, where=_some(found))
    if report.assumed:
        yield msg(
            "not in every run's config, which may be older than the key, and taken as the default there: {keys}",
            keys=_some(report.assumed),
        )
    if len(set(report.data_of.values())) > 1:
        yield msg(
            "the settings were scored on different {split} data, which the column data numbers: ranks hold within the "
            "same data only, and only settings of data 1 are compared",
            split=split_of(report.metric),
        )
    if len(report.settings) > top:
        yield msg(
            "compared: the best {top} of {settings} settings; --top {settings} compares all",
            top=top,
            settings=len(report.settings),
        )
    if report.together:
        yield _of_folds(split_of(report.metric))
    yield from _of_the_test(report)
    yield from _of_the_making(report)
    yield from _of_choosing(report)


def _some(names: Sequence[str]) -> str:
    found = join_messages(names[:_LISTED])
    return msg("{names} and {more} more", names=found, more=len(names) - _LISTED) if len(names) > _LISTED else found


def _of_the_test(report: Report) -> Iterator[str]:
    if report.family is None:
        if len(report.settings) == 1:
            yield msg("one setting: there is nothing to compare it with")
        return
    if report.family.comparisons > 1:
        alone = any(comparison.mcnemar for comparison in report.comparisons)
        yield msg(
            "p-values: Holm's, over the {pairs} pairs of {settings} settings; {intervals}: of each pair alone",
            pairs=report.family.comparisons,
            settings=len(report.compared),
            intervals=msg("intervals and McNemar's p-values") if alone else msg("intervals"),
        )
    yield from _of_what_is_enough(report, report.family.examples)
    seeds = [comparison.difference.seeds for comparison in report.comparisons if comparison.difference.over_seeds]
    if any(2 in both for both in seeds):
        yield msg(
            "of two seeds one hardly knows how much seeds vary: such an interval may miss the truth more often than "
            "once in 20; a third seed helps much"
        )
    if len(seeds) < len(report.comparisons):
        yield msg("a setting with one seed: what is said is of these very runs; another seed may turn it round")


def _of_what_is_enough(report: Report, examples: int) -> Iterator[str]:
    """What could be found, and what it would take."""
    differences = [comparison.difference for comparison in report.comparisons]
    found = [difference.detectable for difference in differences if difference.error]
    if not found:
        return
    least, most = size(report.metric, min(found)), size(report.metric, max(found))
    from_to = msg("{low} to {high}, by pair,", low=least.removesuffix(" points"), high=most)
    yield msg(
        "with these seeds and {examples:,} {split} pairs, a difference of {size} would be found 4 times in 5",
        examples=examples,
        split=split_of(report.metric),
        size=least if least == most else from_to,
    )
    if any(one.error and one.value and not one.is_found for one in differences):
        yield msg(
            "what would be needed to tell two settings apart is a rough guess: it supposes that they differ as much as "
            "they seem to here; where they differ less, it is more"
        )


def _of_folds(split: str) -> str:
    """What is compared of settings with folds."""
    held_out, mean = msg("every pair as the fold that held it out"), msg("each pair by the mean of the folds")
    return msg(
        "where there are folds, those of a seed are taken as one model that answers {together}: the column {column} "
        "has that, and settings are compared by it; the mean ± sd is over runs. The folds share most of what they were "
        "trained on: other training pairs may change more than an interval says",
        together=held_out if split == "dev" else mean,
        column=folds_column(split),
    )


def _of_the_making(report: Report) -> Iterator[str]:
    """What else the runs differ in, and no config says."""
    made = [run.environment() for setting in report.compared for run in setting.runs]
    for fact in dict.fromkeys(fact for one in made for fact in one):
        values = sorted({one[fact] for one in made if fact in one})
        if len(values) > 1:
            yield msg("the runs compared differ in their {fact}: {values}", fact=msg(fact), values=", ".join(values))


def _of_choosing(report: Report) -> Iterator[str]:
    """What it does to a figure that it was chosen on the pairs it is measured on."""
    if not report.settings:
        return
    split = split_of(report.metric)
    if split != "dev":
        yield msg(
            "weights were chosen on dev, not on {split}; to choose a row of this table by {split} uses {split} up",
            split=split,
        )
        return
    told = [*_of_the_evaluations(report), *_of_the_settings(report)]
    if told:
        yield msg(
            "{told}. Expect less on new pairs: to publish a figure, score the chosen run once on pairs it never met",
            told=reduce(lambda one, other: msg("{one}; {other}", one=one, other=other), told),
        )


def _of_the_evaluations(report: Report) -> Iterator[str]:
    runs = [run for setting in report.compared or report.settings[:1] for run in setting.runs]
    times = sorted({count for run in runs if (count := evaluations(run))})
    if times == [1]:
        return
    often = msg("{low} to {high}", low=times[0], high=times[-1]) if len(times) > 1 else f"{times[0]}" if times else None
    yield msg(
        "each run's weights are the best of {often} evaluations on dev by {monitored}, which flatters them",
        often=msg("its") if often is None else often,
        monitored=", ".join(sorted({str(run.monitor) for run in runs})),
    )


def _of_the_settings(report: Report) -> Iterator[str]:
    count = sum(number == 1 for number in report.data_of.values())
    if count == 1:
        return
    again = msg("row 1 is the best of {settings} settings on the same pairs, which flatters it", settings=count)
    much = report.family.optimism(report.higher_is_better) if report.family is not None else 0
    if much > _NOTHING:
        again = msg("{again} by about {size} or more", again=again, size=size(report.metric, much))
    yield again


def evaluations(run: Run) -> int | None:
    """How often a run was evaluated; None where its metrics.jsonl cannot be read."""
    try:
        return sum(run.monitor in row for row in run.rows())
    except InputError:
        return None
