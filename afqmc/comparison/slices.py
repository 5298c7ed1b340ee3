"""Differences between two settings on slices of the pairs: by class, length, overlap and other columns of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afqmc.comparison.bootstrap import resample
from afqmc.comparison.pairwise import ALPHA, Difference, PairwiseTests
from afqmc.comparison.wording import format_interval, format_p, format_size
from afqmc.results.resampled_metrics import Array, LabelledPredictions, drawable_groups
from afqmc.utils.language import Message, msg

MIN_PAIRS = 50  # of a slice
_MAX_VALUES = 5  # slices of a column of texts, or of numbers that are few enough to be codes
_MAX_NAME = 40  # characters of a value in the name of its slice
_RESAMPLES = 500
_ACCURACY = "dev/accuracy"  # slices of one class have no F1 or AUC


@dataclass(frozen=True)
class SliceDifference:
    """The accuracy of setting a minus that of setting b on a slice; adjusted as ``slice_differences`` says."""

    name: Message
    pairs: int
    value: str
    interval: str
    p: str
    is_significant: bool


def slice_differences(
    a: Sequence[LabelledPredictions],
    b: Sequence[LabelledPredictions],
    classes: Sequence[str],
    sentences: Sequence[Sequence[str]] | None,
    groups: Array | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    choices: int = 1,
) -> list[SliceDifference]:
    """Compare two settings on each slice with at least 50 pairs.

    The intervals of all slices hold together, and for all pairs of settings of which this one was chosen by looking at
    the results (Bonferroni).

    Args:
        a: Predictions of the runs of the first setting on the same N pairs.
        b: Those of the second one.
        classes: Names of the classes.
        sentences: Both sentences of each pair, (N, 2); without them, slices are those of the classes and columns.
        groups: The group of each pair, (N,): pairs that share a sentence.
        columns: Other columns of the data, (N,) each: numbers by thirds, texts by their most frequent values.
        choices: Number of pairs of settings of which this one was chosen.
    """
    slices = [*_slices(a[0].gold, classes, sentences)]
    slices += [one for column, values in (columns or {}).items() for one in _column_slices(column, values)]
    masks = [(name, mask) for name, mask in slices if MIN_PAIRS <= mask.sum() < len(mask)]
    return [_difference(name, a, b, mask, groups, len(masks) * choices) for name, mask in masks]


def _slices(
    gold: Array, classes: Sequence[str], sentences: Sequence[Sequence[str]] | None
) -> Iterator[tuple[Message, Array]]:
    """Yield the name of each slice, and which pairs it has, (N,)."""
    for index, name in enumerate(classes):
        yield msg("label {label}", label=name), gold == index
    if sentences is None:
        return
    lengths = np.array([len(one) + len(other) for one, other in sentences], dtype=float)
    for low, high, mask in _thirds(lengths):
        yield msg("{low:.0f} to {high:.0f} characters", low=low, high=high), mask
    overlaps = np.array([_overlap(one, other) for one, other in sentences])
    for low, high, mask in _thirds(overlaps):
        yield msg("character overlap {low:.2f} to {high:.2f}", low=low, high=high), mask


def _column_slices(column: str, values: Sequence[Any]) -> Iterator[tuple[Message, Array]]:
    """Yield the slices of a column. Pairs without a value are in none."""
    texts = ["" if value is None else str(value) for value in values]
    counts = Counter(text for text in texts if text)
    numbers = _numbers(texts) if len(counts) > _MAX_VALUES else None
    if numbers is not None:
        for low, high, mask in _thirds(numbers):
            yield msg("{column} {low:g} to {high:g}", column=column, low=low, high=high), mask
        return
    for value, _ in counts.most_common(_MAX_VALUES):
        mask = np.array([text == value for text in texts])
        shown = value if len(value) <= _MAX_NAME else value[: _MAX_NAME - 1] + "…"
        yield msg("{column} = {value}", column=column, value=shown), mask


def _numbers(texts: Sequence[str]) -> Array | None:
    """Return a column of numbers, (N,), NaN for an empty cell; None if a cell is not a finite number."""
    try:
        numbers = np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return None
    return None if np.isinf(numbers).any() or "nan" in map(str.lower, texts) else numbers


def _overlap(a: str, b: str) -> float:
    """Return the Jaccard similarity of the characters of two sentences."""
    one, other = set(a), set(b)
    return len(one & other) / max(len(one | other), 1)


def _thirds(values: Array) -> Iterator[tuple[float, float, Array]]:
    """Yield smallest and largest value of each third, and which values are in it; equal values stay together."""
    known = np.isfinite(values)
    borders = np.unique(np.quantile(values[known], [1 / 3, 2 / 3], method="lower"))
    bins = np.where(known, np.searchsorted(borders, values, side="right"), -1)
    for number in np.unique(bins[known]):
        mask = bins == number
        yield float(values[mask].min()), float(values[mask].max()), mask


def _difference(
    name: Message,
    a: Sequence[LabelledPredictions],
    b: Sequence[LabelledPredictions],
    mask: Array,
    groups: Array | None,
    hypotheses: int,
) -> SliceDifference:
    answers = [LabelledPredictions(one.gold[mask], one.predicted[mask], one.logits[mask]) for one in (*a, *b)]
    index = [0] * len(a) + [1] * len(b)
    inside = None if groups is None else drawable_groups(np.unique(groups[mask], return_inverse=True)[1])
    tests = PairwiseTests(resample("accuracy", answers, _RESAMPLES, groups=inside), index, alpha=ALPHA / hypotheses)
    difference: Difference = tests.difference(0, 1)
    p = min(difference.p * hypotheses, 1.0)
    return SliceDifference(
        name=name,
        pairs=int(mask.sum()),
        value=format_size(_ACCURACY, difference.value),
        interval=format_interval(difference.low, difference.high, _ACCURACY),
        p=format_p(p).removeprefix("p ").removeprefix("= "),
        is_significant=p <= ALPHA,
    )
