"""What the figures mean, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from afqmc.comparison.bootstrap import MOST_SEEDS, Difference
from afqmc.comparison.mcnemar import McNemar
from afqmc.results.translatable import msg

if TYPE_CHECKING:
    from afqmc.results.settings import Setting

_LONG = 40  # signs of a setting's name, beyond which a sentence calls it by its row
_DIGITS = 7  # of a difference, at most


def display_name(setting: Setting, ranked: Sequence[Setting]) -> str:
    """What a sentence calls a setting: its name, or its row in the ranking where that is long."""
    return setting.name if len(setting.name) <= _LONG else f"#{ranked.index(setting) + 1}"


def split_of(metric: str) -> str:
    """``dev`` of ``dev/accuracy``."""
    return metric.partition("/")[0]


def folds_column(split: str) -> str:
    """Where a table has the figure of a seed's folds as one model."""
    return "oof" if split == "dev" else "folds"


def sentence(first: str, second: str, found: Difference, metric: str, examples: int, folded: bool = False) -> str:
    """One difference: which is better, by how much, or what it would take to know; ``folded``: a seed has folds."""
    if found.error == 0 and found.value == 0:
        return msg(
            "{first} and {second} do not differ at all in {metric} ({seeds})",
            first=first,
            second=second,
            metric=metric,
            seeds=_seeds(found, folded),
        )
    if found.value * _sign(metric) < 0:
        first, second, found = second, first, found.turned()
    size, interval, p = parts(found, metric)
    known = msg("95% CI {interval}, {p}, {seeds}", interval=interval, p=p, seeds=_seeds(found, folded))
    values = {"first": first, "second": second, "size": size, "known": known}
    if found.error == 0:
        return msg(
            "{first} is ahead of {second} by {size} on every resample of the pairs ({seeds}); "
            "no interval and no p-value follow from that",
            **{**values, "seeds": _seeds(found, folded)},
        )
    if found.is_found and found.over_seeds:
        return msg("{first} is better than {second} by {size} ({known})", **values)
    if found.is_found:
        return msg("{first} did better than {second} by {size} in these very runs ({known})", **values)
    needed = required_effort(found, split_of(metric), examples)
    if found.value:
        needed = msg("{needed} would be needed", needed=needed)
    return msg("{first} and {second} cannot be told apart: {size} ({known}); {needed}", **values, needed=needed)


def headline(best: str, differences: Sequence[Difference]) -> str:
    """Of the best against many others, in short."""
    found = sum(difference.is_found for difference in differences)
    values = {"best": best, "found": found, "others": len(differences)}
    if all(difference.over_seeds for difference in differences):
        return msg("{best} is better than {found} of {others} others", **values)
    return msg("{best} did better than {found} of {others} others in these very runs", **values)


def parts(found: Difference, metric: str) -> tuple[str, str, str]:
    """By how much the first is better, ``0.9 points``; the 95% interval of that, ``0.1 to 1.7``; ``p = 0.03``."""
    sign = _sign(metric)
    low, high = sorted((sign * found.low, sign * found.high))
    scale, digits, unit = _scale(metric, (low, high))
    interval = msg("{low} to {high}", low=f"{low * scale:z.{digits}f}", high=f"{high * scale:z.{digits}f}")
    return _with_unit(f"{sign * found.value * scale:z.{digits}f}", unit), interval, p_value(found.p_adjusted)


def required_effort(found: Difference, split: str, examples: int) -> str:
    """What it would take to find a difference that was not found."""
    if not found.value:
        return msg("no difference to find")
    if not found.error:
        return msg("the same on every resample of the pairs")
    if found.seeds_needed is not None:
        return msg("{seeds} seeds each", seeds=found.seeds_needed)
    if found.examples_needed is None:
        return msg("more than {seeds} seeds each", seeds=MOST_SEEDS)
    more = msg("about {examples:,} {split} pairs", examples=_round(found.examples_needed), split=split)
    return msg("{more} and more than {seeds} seeds each", more=more, seeds=MOST_SEEDS) if found.over_seeds else more


def with_mcnemar(sentence: str, first: str, second: str, found: McNemar) -> str:
    """The sentence, and what two runs got right alone."""
    return msg(
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
    return _with_unit(f"{value * scale:z.{digits}f}", unit)


def _with_unit(number: str, unit: str) -> str:
    return msg("{number} points", number=number) if unit else number


def _scale(metric: str, ends: Sequence[float]) -> tuple[int, int, str]:
    """Factor, digits and unit; one digit more where an end would round to nothing, as many as needed where both do."""
    scale, digits, unit = (1, 4, "") if metric.endswith("loss") else (100, 1, " points")
    if unit and any(0 < abs(end) < 0.0005 for end in ends):
        digits = 2
    largest = scale * max(map(abs, ends))
    while largest and digits < _DIGITS and largest < 0.5 * 10**-digits:
        digits += 1
    return scale, digits, unit


def _seeds(found: Difference, folded: bool) -> str:
    one, other = found.seeds
    if folded:
        told = msg("{one} and {other} seeds", one=one, other=other)
        if one == other:
            told = msg("{seeds} seeds each", seeds=one) if one > 1 else msg("1 seed each")
        return msg("{seeds}, the folds of a seed together", seeds=told)
    if not found.over_seeds:
        return msg("one run each") if one == other else msg("{one} and {other} runs", one=one, other=other)
    return msg("{seeds} seeds", seeds=one) if one == other else msg("{one} and {other} seeds", one=one, other=other)


def _sign(metric: str) -> int:
    return -1 if metric.endswith("loss") else 1


def _round(number: int) -> int:
    return int(float(f"{number:.2g}"))
