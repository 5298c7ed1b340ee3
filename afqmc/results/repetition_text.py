"""Describe the result of repeating a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from afqmc.results.repetition import EndDifference, FirstDifference, Outcome, Repetition, relative_change
from afqmc.utils.errors import printable
from afqmc.utils.language import join_messages, msg

_MAX_VALUE = 60  # characters


def verdict_lines(result: Repetition, causes: Sequence[str]) -> Iterator[str]:
    """Yield the verdict, where the runs begin to differ, and how far they differ at the end."""
    if result.verdict is Outcome.identical:
        yield msg("identical: the same bits in {what}", what=join_messages([*_compared(result.compared)]))
        return
    if result.verdict is Outcome.explained:
        yield msg(
            "explained: different bits, within what seeds and hardware explain ({causes})",
            causes=join_messages([printable(cause) for cause in causes]),
        )
    else:
        yield msg("different: {reasons}", reasons=join_messages(result.reasons))
    assert result.first is not None
    yield _first_sentence(result.first)
    if result.end is not None:
        yield from _end_sentences(result.end)
    elif result.verdict is Outcome.explained:
        yield msg("only the beginning was compared, and the end may still differ")


def _compared(counts: dict[str, int]) -> Iterator[str]:
    yield msg("{count} rows of metrics", count=counts["rows"])
    if "predictions" in counts:
        yield msg("{count} predictions", count=counts["predictions"])
        yield msg("the weights") if counts["weights"] else msg("but the record has no weights any more")


def _first_sentence(first: FirstDifference) -> str:
    text = msg(
        "first difference: step {step}, {file}, {name}: {before} in the record, {now} now",
        step=first.step,
        file=first.file,
        name=printable(first.name),
        before=_short(first.before),
        now=_short(first.now),
    )
    if not all(type(value) in (int, float) for value in (first.before, first.now)):
        return text
    return msg("{first}, {share:.1e} of its value", first=text, share=relative_change(first.before, first.now))


def _short(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _end_sentences(end: EndDifference) -> Iterator[str]:
    yield msg(
        "dev predictions: {flipped} of {pairs} change ({share:.1f}%), accuracy {change:+.2f} points",
        flipped=end.flipped,
        pairs=end.pairs,
        share=100 * end.flipped / end.pairs,
        change=100 * end.accuracy_change,
    )
    if end.allowed_flips is None:
        yield msg(
            "explained is up to {allowed:.2f} points; this assumes a standard deviation of {deviation:.1f} points "
            "between seeds, because the sweep of the record has no other seeds",
            allowed=100 * end.allowed_change,
            deviation=100 * end.deviation,
        )
    else:
        yield msg(
            "explained is up to {allowed:.2f} points and {flips} predictions, from {seeds} seeds with a standard "
            "deviation of {deviation:.2f} points",
            allowed=100 * end.allowed_change,
            flips=end.allowed_flips,
            seeds=end.seeds,
            deviation=100 * end.deviation,
        )
