"""What the figures mean, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

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
        return f"{first} and {second} do not differ at all ({_seeds(found, folded)})"
    if found.value * _sign(metric) < 0:
        first, second, found = second, first, found.turned()
    size, interval, p = parts(found, metric)
    known = f"95% CI {interval}, {p}, {_seeds(found, folded)}"
    if found.is_found:
        return f"{first} is better than {second} by {size} ({known})"
    needed = (
        f"{needed_for(found, split_of(metric), examples)} would be needed" if found.value else "no difference to find"
    )
    return f"{first} and {second} cannot be told apart: {size} ({known}); {needed}"


def parts(found: Difference, metric: str) -> tuple[str, str, str]:
    """By how much the first is better, ``0.9 points``; the 95% interval of that, ``0.1 to 1.7``; ``p = 0.03``."""
    sign = _sign(metric)
    low, high = sorted((sign * found.low, sign * found.high))
    scale, digits, unit = _scale(metric, (low, high))
    interval = f"{low * scale:.{digits}f} to {high * scale:.{digits}f}"
    return f"{sign * found.value * scale:.{digits}f}{unit}", interval, p_value(found.p_adjusted)


def needed_for(found: Difference, split: str, examples: int) -> str:
    """What it would take to find a difference that was not found."""
    if found.seeds_needed is not None:
        return f"{found.seeds_needed} seeds each"
    if found.examples_needed is None:
        return f"more than {MOST_SEEDS} seeds each"
    more = f"about {_round(found.examples_needed):,} {split} pairs"
    return f"{more} and more than {MOST_SEEDS} seeds each" if found.over_seeds else more


def mcnemar(first: str, second: str, found: McNemar) -> str:
    """What two runs got right alone, as the end of a sentence."""
    return (
        f"; McNemar: {found.only_first} pairs right only with {first}, {found.only_second} only with {second}, "
        f"{p_value(found.p)}"
    )


def p_value(p: float) -> str:
    """``p = 0.031``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def size(metric: str, value: float) -> str:
    """A difference, in points where the metric is a share."""
    scale, digits, unit = _scale(metric, (value,))
    return f"{value * scale:.{digits}f}{unit}"


def _scale(metric: str, ends: Sequence[float]) -> tuple[int, int, str]:
    """Factor, digits and unit; one digit more where an end would round to nothing."""
    if metric.endswith("loss"):
        return 1, 4, ""
    return 100, 1 if all(abs(end) >= 0.0005 or end == 0 for end in ends) else 2, " points"


def _seeds(found: Difference, folded: bool) -> str:
    one, other = found.seeds
    if folded:
        told = f"{one} seed{'s' if one > 1 else ''} each" if one == other else f"{one} and {other} seeds"
        return f"{told}, the folds of a seed together"
    if not found.over_seeds:
        return "one run each" if one == other else f"{one} and {other} runs"
    return f"{one} seeds" if one == other else f"{one} and {other} seeds"


def _sign(metric: str) -> int:
    return -1 if metric.endswith("loss") else 1


def _round(number: int) -> int:
    return int(float(f"{number:.2g}"))


def notes(report: Report, top: int) -> Iterator[str]:
    """What a reader must know to read the figures rightly."""
    runs = [(label(setting, report.settings), setting.runs) for setting in report.settings]
    repeats = [run.name for setting in report.settings for run in setting.repeats]
    if repeats:
        yield f"not counted again, the same settings, seed and fold as another run: {_some(repeats)}"
    for said, is_so in (
        (f"{report.metric} is undefined", lambda run: run.figures.get(report.metric) is None),
        ("one label for (nearly) every pair", lambda run: run.collapsed_onto is not None),
    ):
        counts = [(name, sum(map(is_so, of)), len(of)) for name, of in runs]
        if found := [f"{name} in {count} of {n} runs" for name, count, n in counts if count]:
            yield f"{said}: {_some(found)}"
    if len(report.settings) > top:
        yield f"compared: the best {top} of {len(report.settings)} settings; --top {len(report.settings)} compares all"
    yield from _of_the_test(report)
    yield from _of_the_making(report)
    yield from _of_choosing(report)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _of_the_test(report: Report) -> Iterator[str]:
    if report.family is None:
        if len(report.settings) == 1:
            yield "one setting: there is nothing to compare it with"
        return
    if report.family.comparisons > 1:
        yield (
            f"p-values: Holm's, over the {report.family.comparisons} pairs of {len(report.compared)} settings; "
            "intervals: of each pair alone"
        )
    found = [comparison.difference.detectable for comparison in report.comparisons]
    least, most = size(report.metric, min(found)), size(report.metric, max(found))
    from_to = least if least == most else f"{least.removesuffix(' points')} to {most}, by pair,"
    yield (
        f"with these seeds and {report.family.examples:,} {split_of(report.metric)} pairs, a difference of "
        f"{from_to} would be found 4 times in 5"
    )
    if any(setting.has_folds for setting in report.compared):
        yield _of_folds(split_of(report.metric))
    if not all(comparison.difference.over_seeds for comparison in report.comparisons):
        yield "a setting with one seed: what is said is of these very runs; another seed may turn it round"


def _of_folds(split: str) -> str:
    """What is compared of settings with folds."""
    together = "every pair as the fold that held it out" if split == "dev" else "each pair by the mean of the folds"
    return (
        f"where there are folds, those of a seed are compared as one model that answers {together}; the table has "
        "means over runs. The folds share most of what they were trained on: other training pairs may change more than "
        "an interval says"
    )


def _of_the_making(report: Report) -> Iterator[str]:
    """What else the runs differ in, and no config says."""
    made = [run.environment() for setting in report.compared for run in setting.runs]
    for fact in dict.fromkeys(fact for one in made for fact in one):
        values = sorted({one[fact] for one in made if fact in one})
        if len(values) > 1:
            yield f"the runs compared differ in their {fact}: {', '.join(values)}"


def _of_choosing(report: Report) -> Iterator[str]:
    """What it does to a figure that it was chosen on the pairs it is measured on."""
    if not report.settings:
        return
    split = split_of(report.metric)
    if split != "dev":
        yield f"weights were chosen on dev, not on {split}; to choose a row of this table by {split} uses {split} up"
        return
    runs = [run for setting in report.compared or report.settings[:1] for run in setting.runs]
    times = sorted({count for run in runs if (count := evaluations(run))})
    monitored = ", ".join(sorted({str(run.monitor) for run in runs}))
    told = []
    if times != [1]:
        often = "its" if not times else f"{times[0]} to {times[-1]}" if len(times) > 1 else f"{times[0]}"
        told.append(
            f"each run's weights are the best of {often} evaluations on dev by {monitored}, which flatters them"
        )
    if len(report.settings) > 1:
        again = f"row 1 is the best of {len(report.settings)} settings on the same pairs, which flatters it"
        much = report.family.optimism(report.higher_is_better) if report.family is not None else 0
        told.append(f"{again} by {size(report.metric, much)} or more" if much > 0 else again)
    if told:
        yield (
            f"{'; '.join(told)}. Expect less on new pairs: to publish a figure, score the chosen run once on pairs it "
            "never met"
        )


def evaluations(run: Run) -> int | None:
    """How often a run was evaluated; None where its metrics.jsonl cannot be read."""
    try:
        return sum(run.monitor in row for row in run.rows())
    except InputError:
        return None
