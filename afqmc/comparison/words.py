"""What the figures mean, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from afqmc.comparison.said import listed, said
from afqmc.comparison.statistics import MOST_SEEDS, Difference, McNemar
from afqmc.errors import InputError

if TYPE_CHECKING:
    from afqmc.comparison.report import Report
    from afqmc.comparison.runs import Run
    from afqmc.comparison.settings import Setting

_LONG = 40  # signs of a setting's name, beyond which a sentence calls it by its row
_LISTED = 8


def printable(text: str) -> str:
    """The text with every sign that could steer a terminal written out: run directories may come from anybody."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def label(setting: Setting, ranked: Sequence[Setting]) -> str:
    """What a sentence calls a setting: its name, or its row in the ranking where that is long."""
    return setting.name if len(setting.name) <= _LONG else f"#{ranked.index(setting) + 1}"


def split_of(metric: str) -> str:
    """``dev`` of ``dev/accuracy``."""
    return metric.partition("/")[0]


def sentence(first: str, second: str, found: Difference, metric: str, examples: int, folded: bool = False) -> str:
    """One difference: which is better, by how much, or what it would take to know; ``folded``: a seed has folds."""
    if found.error == 0:
        return said(
            "{first} and {second} do not differ at all ({seeds})",
            first=first,
            second=second,
            seeds=_seeds(found, folded),
        )
    if found.value * _sign(metric) < 0:
        first, second, found = second, first, found.turned()
    size, interval, p = parts(found, metric)
    known = said("95% CI {interval}, {p}, {seeds}", interval=interval, p=p, seeds=_seeds(found, folded))
    values = {"first": first, "second": second, "size": size, "known": known}
    if found.is_found:
        return said("{first} is better than {second} by {size} ({known})", **values)
    needed = said("no difference to find")
    if found.value:
        needed = said("{needed} would be needed", needed=needed_for(found, split_of(metric), examples))
    return said("{first} and {second} cannot be told apart: {size} ({known}); {needed}", **values, needed=needed)


def parts(found: Difference, metric: str) -> tuple[str, str, str]:
    """By how much the first is better, ``0.9 points``; the 95% interval of that, ``0.1 to 1.7``; ``p = 0.03``."""
    sign = _sign(metric)
    low, high = sorted((sign * found.low, sign * found.high))
    scale, digits, unit = _scale(metric, (low, high))
    interval = said("{low} to {high}", low=f"{low * scale:.{digits}f}", high=f"{high * scale:.{digits}f}")
    return _with_unit(f"{sign * found.value * scale:.{digits}f}", unit), interval, p_value(found.p_adjusted)


def needed_for(found: Difference, split: str, examples: int) -> str:
    """What it would take to find a difference that was not found."""
    if found.seeds_needed is not None:
        return said("{seeds} seeds each", seeds=found.seeds_needed)
    if found.examples_needed is None:
        return said("more than {seeds} seeds each", seeds=MOST_SEEDS)
    more = said("about {examples:,} {split} pairs", examples=_round(found.examples_needed), split=split)
    return said("{more} and more than {seeds} seeds each", more=more, seeds=MOST_SEEDS) if found.over_seeds else more


def with_mcnemar(sentence: str, first: str, second: str, found: McNemar) -> str:
    """The sentence, and what two runs got right alone."""
    return said(
        "{sentence}; McNemar: {only_first} pairs right only with {first}, {only_second} only with {second}, {p}",
        sentence=sentence,
        only_first=found.only_first,
        first=first,
        only_second=found.only_second,
        second=second,
        p=p_value(found.p),
    )


def p_value(p: float) -> str:
    """``p = 0.031``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def size(metric: str, value: float) -> str:
    """A difference, in points where the metric is a share."""
    scale, digits, unit = _scale(metric, (value,))
    return _with_unit(f"{value * scale:.{digits}f}", unit)


def _with_unit(number: str, unit: str) -> str:
    return said("{number} points", number=number) if unit else number


def _scale(metric: str, ends: Sequence[float]) -> tuple[int, int, str]:
    """Factor, digits and unit; one digit more where an end would round to nothing."""
    if metric.endswith("loss"):
        return 1, 4, ""
    return 100, 1 if all(abs(end) >= 0.0005 or end == 0 for end in ends) else 2, " points"


def _seeds(found: Difference, folded: bool) -> str:
    one, other = found.seeds
    if folded:
        told = said("{one} and {other} seeds", one=one, other=other)
        if one == other:
            told = said("{seeds} seeds each", seeds=one) if one > 1 else said("1 seed each")
        return said("{seeds}, the folds of a seed together", seeds=told)
    if not found.over_seeds:
        return said("one run each") if one == other else said("{one} and {other} runs", one=one, other=other)
    return said("{seeds} seeds", seeds=one) if one == other else said("{one} and {other} seeds", one=one, other=other)


def _sign(metric: str) -> int:
    return -1 if metric.endswith("loss") else 1


def _round(number: int) -> int:
    return int(float(f"{number:.2g}"))


def notes(report: Report, top: int) -> Iterator[str]:
    """What a reader must know to read the figures rightly."""
    runs = [(label(setting, report.settings), setting.runs) for setting in report.settings]
    repeats = [run.name for setting in report.settings for run in setting.repeats]
    if repeats:
        yield said("not counted again, the same settings, seed and fold as another run: {runs}", runs=_some(repeats))
    for told, is_so in (
        (said("{metric} is undefined", metric=report.metric), lambda run: run.figures.get(report.metric) is None),
        (said("one label for (nearly) every pair"), lambda run: run.collapsed_onto is not None),
    ):
        counts = [(name, sum(map(is_so, of)), len(of)) for name, of in runs]
        found = [
            said("{name} in {count} of {n} runs", name=name, count=count, n=n) for name, count, n in counts if count
        ]
        if found:
            yield said("{told}: {where}", told=told, where=_some(found))
    if len(report.settings) > top:
        yield said(
            "compared: the best {top} of {settings} settings; --top {settings} compares all",
            top=top,
            settings=len(report.settings),
        )
    yield from _of_the_test(report)
    yield from _of_the_making(report)
    yield from _of_choosing(report)


def _some(names: Sequence[str]) -> str:
    found = listed(names[:_LISTED])
    return said("{names} and {more} more", names=found, more=len(names) - _LISTED) if len(names) > _LISTED else found


def _of_the_test(report: Report) -> Iterator[str]:
    if report.family is None:
        if len(report.settings) == 1:
            yield said("one setting: there is nothing to compare it with")
        return
    if report.family.comparisons > 1:
        yield said(
            "p-values: Holm's, over the {pairs} pairs of {settings} settings; intervals: of each pair alone",
            pairs=report.family.comparisons,
            settings=len(report.compared),
        )
    found = [comparison.difference.detectable for comparison in report.comparisons]
    least, most = size(report.metric, min(found)), size(report.metric, max(found))
    from_to = said("{low} to {high}, by pair,", low=least.removesuffix(" points"), high=most)
    yield said(
        "with these seeds and {examples:,} {split} pairs, a difference of {size} would be found 4 times in 5",
        examples=report.family.examples,
        split=split_of(report.metric),
        size=least if least == most else from_to,
    )
    if any(setting.has_folds for setting in report.compared):
        yield _of_folds(split_of(report.metric))
    if not all(comparison.difference.over_seeds for comparison in report.comparisons):
        yield said("a setting with one seed: what is said is of these very runs; another seed may turn it round")


def _of_folds(split: str) -> str:
    """What is compared of settings with folds."""
    held_out, mean = said("every pair as the fold that held it out"), said("each pair by the mean of the folds")
    return said(
        "where there are folds, those of a seed are compared as one model that answers {together}; the table has means "
        "over runs. The folds share most of what they were trained on: other training pairs may change more than an "
        "interval says",
        together=held_out if split == "dev" else mean,
    )


def _of_the_making(report: Report) -> Iterator[str]:
    """What else the runs differ in, and no config says."""
    made = [run.environment() for setting in report.compared for run in setting.runs]
    for fact in dict.fromkeys(fact for one in made for fact in one):
        values = sorted({one[fact] for one in made if fact in one})
        if len(values) > 1:
            yield said("the runs compared differ in their {fact}: {values}", fact=said(fact), values=", ".join(values))


def _of_choosing(report: Report) -> Iterator[str]:
    """What it does to a figure that it was chosen on the pairs it is measured on."""
    if not report.settings:
        return
    split = split_of(report.metric)
    if split != "dev":
        yield said(
            "weights were chosen on dev, not on {split}; to choose a row of this table by {split} uses {split} up",
            split=split,
        )
        return
    told = [*_of_the_evaluations(report), *_of_the_settings(report)]
    if told:
        yield said(
            "{told}. Expect less on new pairs: to publish a figure, score the chosen run once on pairs it never met",
            told=reduce(lambda one, other: said("{one}; {other}", one=one, other=other), told),
        )


def _of_the_evaluations(report: Report) -> Iterator[str]:
    runs = [run for setting in report.compared or report.settings[:1] for run in setting.runs]
    times = sorted({count for run in runs if (count := evaluations(run))})
    if times == [1]:
        return
    often = (
        said("{low} to {high}", low=times[0], high=times[-1]) if len(times) > 1 else f"{times[0]}" if times else None
    )
    yield said(
        "each run's weights are the best of {often} evaluations on dev by {monitored}, which flatters them",
        often=said("its") if often is None else often,
        monitored=", ".join(sorted({str(run.monitor) for run in runs})),
    )


def _of_the_settings(report: Report) -> Iterator[str]:
    if len(report.settings) == 1:
        return
    again = said(
        "row 1 is the best of {settings} settings on the same pairs, which flatters it", settings=len(report.settings)
    )
    much = report.family.optimism(report.higher_is_better) if report.family is not None else 0
    yield said("{again} by {size} or more", again=again, size=size(report.metric, much)) if much > 0 else again


def evaluations(run: Run) -> int | None:
    """How often a run was evaluated; None where its metrics.jsonl cannot be read."""
    try:
        return sum(run.monitor in row for row in run.rows())
    except InputError:
        return None
