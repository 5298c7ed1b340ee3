"""Describe differences between settings in sentences, which the page can translate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from afqmc.comparison.mcnemar import McNemar
from afqmc.comparison.pairwise import MAX_SEEDS, Difference
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.utils.language import msg

if TYPE_CHECKING:
    from afqmc.results.settings import Setting

EQUIVALENT = 0.005  # half a point; smaller differences rarely matter
_MAX_NAME = 40  # characters; settings with longer names are referred to by their rank
_NEGLIGIBLE = 0.0005  # 0.05 points; for smaller differences, seeds and pairs are not planned
_MAX_DIGITS = 7  # decimals of a difference
_MIN_CORRECTION = 1e-4  # a smaller correction is not mentioned


def display_name(setting: Setting, ranked: Sequence[Setting]) -> str:
    """Return the name of a setting, or ``#3`` (its rank) if the name is long."""
    return setting.name if len(setting.name) <= _MAX_NAME else f"#{ranked.index(setting) + 1}"


def split_of(metric: str) -> str:
    """Return ``dev`` for ``dev/accuracy``."""
    return metric.partition("/")[0]


def folds_column(split: str) -> str:
    """Return the header of the column with the metric of a seed's combined folds."""
    return "oof" if split == "dev" else "folds"


def difference_sentence(a: str, b: str, difference: Difference, metric: str, has_folds: bool = False) -> str:
    """Return which of two settings is better and by how much, or what is needed to detect the difference.

    Args:
        a: Name of the first setting.
        b: Name of the second one.
        difference: The metric of a minus that of b.
        metric: As ``split/name``.
        has_folds: Whether the folds of each seed were combined.
    """
    if difference.error == 0 and difference.value == 0:
        seeds = _format_seeds(difference, has_folds)
        return msg("{a} and {b} do not differ at all in {metric} ({seeds})", a=a, b=b, metric=metric, seeds=seeds)
    if difference.value * _sign(metric) < 0:
        a, b, difference = b, a, difference.negated()
    size, interval, p = format_difference(difference, metric)
    seeds = _format_seeds(difference, has_folds)
    if difference.error == 0:
        return msg(
            "{a} is ahead of {b} by {size} on every resample of the pairs ({seeds}), "
            "so there is no interval and no p-value",
            a=a,
            b=b,
            size=size,
            seeds=seeds,
        )
    details = msg("95% CI {interval}, {p}, {seeds}", interval=interval, p=p, seeds=seeds)
    values = {"a": a, "b": b, "size": size, "details": details}
    if difference.significant and difference.over_seeds:
        return msg("{a} is better than {b} by {size} ({details})", **values)
    if difference.significant:
        sentence = msg("{a} did better than {b} by {size} in these very runs ({details})", **values)
        return with_other_seeds(sentence, difference, metric)
    if is_equivalent(difference, metric):
        values["margin"] = format_size(metric, EQUIVALENT)
        return msg("{a} and {b} differ by less than {margin}: {size} ({details})", **values)
    needed = required_effort(difference, metric)
    return msg("{a} and {b} cannot be told apart: {size} ({details}); {needed}", **values, needed=needed)


def baseline_sentence(name: str, baseline: str, difference: Difference, metric: str, has_folds: bool = False) -> str:
    """Return whether a setting is better or worse than the baseline, and by how much.

    Args:
        name: Of the setting.
        baseline: Name of the baseline.
        difference: The metric of the setting minus that of the baseline.
        metric: As ``split/name``.
        has_folds: Whether the folds of each seed were combined.
    """
    if difference.error == 0:
        return difference_sentence(name, baseline, difference, metric, has_folds)
    size, interval, p = format_difference(difference, metric, signed=True)
    details = msg(
        "95% CI {interval}, adjusted {p}, {seeds}", interval=interval, p=p, seeds=_format_seeds(difference, has_folds)
    )
    values = {"name": name, "baseline": baseline, "size": size, "details": details}
    if not difference.significant:
        if is_equivalent(difference, metric):
            values["margin"] = format_size(metric, EQUIVALENT)
            return msg("{name} and {baseline} differ by less than {margin}: {size} ({details})", **values)
        needed = required_effort(difference, metric)
        return msg("{name} cannot be told apart from {baseline}: {size} ({details}); {needed}", **values, needed=needed)
    is_better = difference.value * _sign(metric) > 0
    if difference.over_seeds:
        if is_better:
            return msg("{name} is better than {baseline}: {size} ({details})", **values)
        return msg("{name} is worse than {baseline}: {size} ({details})", **values)
    if is_better:
        sentence = msg("{name} did better than {baseline} in these very runs: {size} ({details})", **values)
    else:
        sentence = msg("{name} did worse than {baseline} in these very runs: {size} ({details})", **values)
    return with_other_seeds(sentence, difference, metric)


def is_equivalent(difference: Difference, metric: str) -> bool:
    """Return whether two settings are shown to differ by less than half a point, and no difference is found.

    A loss has no natural margin, and single runs say nothing about settings.
    """
    has_margin = metric_scale(metric) == 100 and difference.over_seeds
    return has_margin and not difference.significant and difference.bound < EQUIVALENT


def headline(best: str, differences: Sequence[Difference]) -> str:
    """Return how many of the other settings the best one beats."""
    count = sum(difference.significant for difference in differences)
    values = {"best": best, "count": count, "others": len(differences)}
    if all(difference.over_seeds for difference in differences):
        return msg("{best} is better than {count} of {others} others", **values)
    return msg("{best} did better than {count} of {others} others in these very runs", **values)


def baseline_headline(baseline: str, differences: Sequence[Difference], metric: str) -> str:
    """Return how many settings are better and worse than the baseline; differences are settings minus baseline."""
    signs = [_sign(metric) * difference.value for difference in differences if difference.significant]
    better, worse = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    values = {"baseline": baseline, "better": better, "worse": worse, "others": len(differences)}
    if all(difference.over_seeds for difference in differences):
        return msg("of {others} settings, {better} are better than {baseline} and {worse} are worse", **values)
    return msg(
        "of {others} settings, {better} did better than {baseline} in these very runs and {worse} did worse", **values
    )


def with_cost(sentence: str, name: str, time: float | None, memory: float | None) -> str:
    """Append time per pair and peak memory, relative to those of the baseline; None if not recorded."""
    if time is None or memory is None:
        return sentence
    return msg(
        "{sentence}; {name} takes {time} times the time per pair and {memory} times the memory",
        sentence=sentence,
        name=name,
        time=f"{time:.2f}",
        memory=f"{memory:.2f}",
    )


def format_difference(difference: Difference, metric: str, signed: bool = False) -> tuple[str, str, str]:
    """Return size, 95% interval and adjusted p-value, as ``0.9 points``, ``0.1 to 1.7`` and ``p = 0.03``.

    The size is positive if the first setting is better, also for a loss; ``signed`` writes the sign of a positive one.
    """
    sign = _sign(metric)
    scale, digits, unit = _number_format(metric, (difference.low, difference.high))
    interval = format_interval(difference.low, difference.high, metric)
    value = sign * difference.value * scale
    size = _with_unit(f"{value:+z.{digits}f}" if signed else f"{value:z.{digits}f}", unit)
    return size, interval, format_p(difference.p_adjusted)


def format_interval(low: float, high: float, metric: str) -> str:
    """Return ``0.1 to 1.7``; positive if the first setting is better, also for a loss."""
    low, high = sorted((_sign(metric) * low, _sign(metric) * high))
    scale, digits, _ = _number_format(metric, (low, high))
    return msg("{low} to {high}", low=f"{low * scale:z.{digits}f}", high=f"{high * scale:z.{digits}f}")


def required_effort(difference: Difference, metric: str) -> str:
    """Return which seeds and examples would detect a difference that is not significant."""
    if not difference.value:
        return msg("there is no difference to detect")
    if not difference.error:
        return msg("the same on every resample of the pairs")
    is_tiny = metric_scale(metric) == 100 and difference.assumed < _NEGLIGIBLE
    if not difference.plans or is_tiny:
        return msg("the difference may well be zero")
    split = split_of(metric)
    values = {"size": format_size(metric, difference.assumed)}
    if not difference.over_seeds:
        pairs = _format_pairs(_round(difference.plans[0].examples), split)
        return msg("a difference of {size} would need about {pairs}", **values, pairs=pairs)
    plans = [plan for plan in difference.plans if plan.seeds is not None]
    if not plans:
        pairs = _format_pairs(difference.plans[-1].examples, split)
        return msg(
            "a difference of {size} would need more than {seeds} seeds each, even with {pairs}",
            **values,
            seeds=MAX_SEEDS,
            pairs=pairs,
        )
    values["seeds"] = str(plans[0].seeds)
    now = difference.plans[0].examples
    if plans[0].examples == now and len(plans) > 1 and plans[1].seeds != plans[0].seeds:
        return msg(
            "a difference of {size} would need {seeds} seeds each, or {fewer} with {pairs}",
            **values,
            fewer=plans[1].seeds,
            pairs=_format_pairs(plans[1].examples, split),
        )
    if plans[0].examples == now:
        return msg("a difference of {size} would need {seeds} seeds each", **values)
    pairs = _format_pairs(plans[0].examples, split)
    return msg("a difference of {size} would need {seeds} seeds each with {pairs}", **values, pairs=pairs)


def _format_pairs(examples: int, split: str) -> str:
    return msg("{examples:,} {split} pairs", examples=examples, split=split)


def with_other_seeds(sentence: str, difference: Difference, metric: str) -> str:
    """Append what other seeds of single runs would give, if they vary as is usual or as assumed."""
    if not difference.other_seeds:
        return sentence
    intervals = [format_interval(other.low, other.high, metric) for other in difference.other_seeds]
    deviations = [format_size(metric, other.deviation) for other in difference.other_seeds]
    values = {"sentence": sentence, "interval": intervals[0], "deviation": deviations[0]}
    if not difference.other_seeds[0].is_assumed:
        return msg(
            "{sentence}; for other seeds, whose standard deviation is {deviation} here, the 95% CI is {interval}",
            **values,
        )
    return msg(
        "{sentence}; for other seeds, the 95% CI is {interval} if their standard deviation is {deviation}, and {wider} "
        "if it is {more}; single runs do not show which",
        **values,
        wider=intervals[-1],
        more=deviations[-1],
    )


def with_correction(
    sentence: str, a: str, b: str, difference: Difference, evaluations: tuple[str, str], metric: str
) -> str:
    """Append what was subtracted because the runs of one setting had more evaluations to choose from.

    Args:
        sentence: About the difference.
        a: Name of the first setting.
        b: Name of the second one.
        difference: Of a minus b.
        evaluations: Numbers of evaluations of the runs of a and of b.
        metric: As ``split/name``.
    """
    if abs(difference.correction) < _MIN_CORRECTION:
        return sentence
    if difference.correction * _sign(metric) < 0:
        a, b, evaluations = b, a, evaluations[::-1]
    return msg(
        "{sentence}; {a} is lowered by {size}, because its runs chose among {more} evaluations, those of {b} among "
        "{fewer}",
        sentence=sentence,
        size=format_size(metric, abs(difference.correction)),
        a=a,
        b=b,
        more=evaluations[0],
        fewer=evaluations[1],
    )


def with_collapsed(sentence: str, counts: Sequence[tuple[str, int, int]]) -> str:
    """Append which settings have runs that predict a single label; given with the count of these and of all runs."""
    for name, count, runs in counts:
        if count:
            sentence = msg(
                "{sentence}; {count} of {runs} runs of {name} predict the same label for (nearly) every pair",
                sentence=sentence,
                count=count,
                runs=runs,
                name=name,
            )
    return sentence


def with_unfinished(sentence: str, counts: Sequence[tuple[str, int]]) -> str:
    """Append how many runs of each setting have no final metrics, for settings that have such runs."""
    for name, count in counts:
        if count == 1:
            sentence = msg("{sentence}; 1 more run of {name} has no final metrics", sentence=sentence, name=name)
        elif count:
            sentence = msg(
                "{sentence}; {count} more runs of {name} have no final metrics",
                sentence=sentence,
                count=count,
                name=name,
            )
    return sentence


def with_mcnemar(sentence: str, a: str, b: str, test: McNemar) -> str:
    """Append the result of McNemar's test to a sentence."""
    return msg(
        "{sentence}; McNemar: {only_a} pairs correct only with {a}, {only_b} only with {b}, {p}",
        sentence=sentence,
        only_a=test.only_first,
        a=a,
        only_b=test.only_second,
        b=b,
        p=format_p(test.p),
    )


def format_p(p: float) -> str:
    """Return ``p = 0.031`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def format_size(metric: str, value: float) -> str:
    """Return a difference of a metric with its unit: percentage points, or none for a loss."""
    scale, digits, unit = _number_format(metric, (value,))
    return _with_unit(f"{value * scale:z.{digits}f}", unit)


def _with_unit(number: str, unit: str) -> str:
    return msg("{number} points", number=number) if unit else number


def metric_scale(metric: str) -> int:
    """Return by how much values of a metric are multiplied to be in its unit: percentage points, or none for a loss."""
    return 100 if higher_is_better(metric) else 1


def _number_format(metric: str, values: Sequence[float]) -> tuple[int, int, str]:
    """Return factor, decimals and unit.

    There is one more decimal if any value would round to zero, and as many as needed if all would.
    """
    scale, digits, unit = (100, 1, " points") if higher_is_better(metric) else (1, 4, "")
    if unit and any(0 < abs(value) < 0.0005 for value in values):
        digits = 2
    largest = scale * max(map(abs, values))
    while largest and digits < _MAX_DIGITS and largest < 0.5 * 10**-digits:
        digits += 1
    return scale, digits, unit


def _format_seeds(difference: Difference, has_folds: bool) -> str:
    n_a, n_b = difference.seeds
    if has_folds:
        seeds = msg("{n_a} and {n_b} seeds", n_a=n_a, n_b=n_b)
        if n_a == n_b:
            seeds = msg("{seeds} seeds each", seeds=n_a) if n_a > 1 else msg("1 seed each")
        return msg("{seeds}, folds of a seed combined", seeds=seeds)
    if not difference.over_seeds:
        return msg("one run each") if n_a == n_b else msg("{n_a} and {n_b} runs", n_a=n_a, n_b=n_b)
    return msg("{seeds} seeds", seeds=n_a) if n_a == n_b else msg("{n_a} and {n_b} seeds", n_a=n_a, n_b=n_b)


def _sign(metric: str) -> int:
    return 1 if higher_is_better(metric) else -1


def _round(number: int) -> int:
    return int(float(f"{number:.2g}"))
