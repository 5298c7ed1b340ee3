"""Differences between two settings on slices of the pairs: by class, length and overlap of the sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from afqmc.comparison.bootstrap import resample
from afqmc.comparison.pairwise import ALPHA, Difference, PairwiseTests
from afqmc.comparison.wording import format_interval, format_p, format_size
from afqmc.results.resampled_metrics import Array, LabelledPredictions, drawable_groups
from afqmc.utils.language import Message, msg

MIN_PAIRS = 50  # of a slice
_RESAMPLES = 500
_ACCURACY = "dev/accuracy"  # slices of one class have no F1 or AUC


@dataclass(frozen=True)
class SliceDifference:
    """The accuracy of setting a minus that of setting b on a slice; adjusted for the number of slices (Bonferroni)."""

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
) -> list[SliceDifference]:
    """Compare two settings on each slice with at least 50 pairs.

    Args:
        a: Predictions of the runs of the first setting on the same N pairs.
        b: Those of the second one.
        classes: Names of the classes.
        sentences: Both sentences of each pair, (N, 2); without them, slices are those of the classes.
        groups: The group of each pair, (N,): pairs that share a sentence.
    """
    masks = [
        (name, mask) for name, mask in _slices(a[0].gold, classes, sentences) if MIN_PAIRS <= mask.sum() < len(mask)
    ]
    return [_difference(name, a, b, mask, groups, len(masks)) for name, mask in masks]


def _slices(
    gold: Array, classes: Sequence[str], sentences: Sequence[Sequence[str]] | None
) -> Iterator[tuple[Message, Array]]:
    """Yield the name of each slice, and which pairs it has, (N,)."""
    for index, name in enumerate(classes):
        yield msg("label {label}", label=name), gold == index
    if sentences is None:
        return
    lengths = np.array([len(one) + len(other) for one, other in sentences])
    for low, high, mask in _thirds(lengths):
        yield msg("{low:.0f} to {high:.0f} characters", low=low, high=high), mask
    overlaps = np.array([_overlap(one, other) for one, other in sentences])
    for low, high, mask in _thirds(overlaps):
        yield msg("character overlap {low:.2f} to {high:.2f}", low=low, high=high), mask


def _overlap(a: str, b: str) -> float:
    """Return the Jaccard similarity of the characters of two sentences."""
    one, other = set(a), set(b)
    return len(one & other) / max(len(one | other), 1)


def _thirds(values: Array) -> Iterator[tuple[float, float, Array]]:
    """Yield smallest and largest value of each third, and which values are in it; equal values stay together."""
    borders = np.unique(np.quantile(values, [1 / 3, 2 / 3], method="lower"))
    bins = np.searchsorted(borders, values, side="right")
    for number in np.unique(bins):
        mask = bins == number
        yield float(values[mask].min()), float(values[mask].max()), mask


def _difference(
    name: Message,
    a: Sequence[LabelledPredictions],
    b: Sequence[LabelledPredictions],
    mask: Array,
    groups: Array | None,
    slices: int,
) -> SliceDifference:
    answers = [LabelledPredictions(one.gold[mask], one.predicted[mask], one.logits[mask]) for one in (*a, *b)]
    index = [0] * len(a) + [1] * len(b)
    inside = None if groups is None else drawable_groups(np.unique(groups[mask], return_inverse=True)[1])
    tests = PairwiseTests(resample("accuracy", answers, _RESAMPLES, groups=inside), index, alpha=ALPHA / slices)
    difference: Difference = tests.difference(0, 1)
    p = min(difference.p * slices, 1.0)
    return SliceDifference(
        name=name,
        pairs=int(mask.sum()),
        value=format_size(_ACCURACY, difference.value),
        interval=format_interval(difference.low, difference.high, _ACCURACY),
        p=format_p(p).removeprefix("p ").removeprefix("= "),
        is_significant=p <= ALPHA,
    )
