"""Warnings about columns or labels that are probably not what the config assumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from afqmc.data.columns import Texts, combine_hashes
from afqmc.data.labels import appearance, code_points, look_alikes
from afqmc.data.loading import Dataset
from afqmc.data.pairs import Pairs
from afqmc.utils.errors import elide

_NO_ANSWER = {"-", "-1.0", "?", "nan", "null", "none", "n/a", "na", "unknown"}  # as returned by `appearance`
_MIN_PAIRS = 20  # with fewer pairs a pattern may be chance
_MIN_REPEATS = 10  # a column whose texts occur this often on average may hold labels
_MAX_SPACES = 16  # bytes of spaces around a label in a sentence column
_LISTED = 3  # examples per message


def label_warnings(dataset: Dataset) -> list[str]:
    """Return a line per warning."""
    return [*_row_warnings(dataset), *_class_warnings(dataset), *_sentence_warnings(dataset)]


def _row_warnings(dataset: Dataset) -> Iterator[str]:
    """Warn about skipped rows, and about values of ``drop_labels`` that do not occur."""
    dropped: Counter[str] = Counter()
    for split, report in dataset.reports().items():
        dropped.update(report.dropped)
        dropped.update(report.placeholders)
        if report.skipped:
            yield f"{split}: {report.skipped_rows()}"
    for name, count in dropped.items():
        if count == 0:
            alike = [label for label in dataset.labels if appearance(label) == appearance(name)]
            hint = f"; {code_points(alike[0])} looks like {code_points(name)}" if alike else ""
            yield f"dataset.drop_labels: no row of any split is labelled {name!r}{hint}"


def _class_warnings(dataset: Dataset) -> Iterator[str]:
    """Warn about labels that look alike, and about labels that probably mean a missing answer."""
    counts = dict(zip(dataset.labels, dataset.label_counts(dataset.train), strict=True))
    for names in look_alikes(dataset.labels):
        shown = " and ".join(f"{code_points(name)}, {counts[name]} training pairs" for name in names[:_LISTED])
        yield (
            f"labels that look alike are separate classes: {shown}; if they are one class, correct the files"
            + (f" ({len(names)} such labels)" if len(names) > _LISTED else "")
        )
    for name in dataset.labels:
        if appearance(name) in _NO_ANSWER:
            yield (
                f"label {name!r} is a class, with {counts[name]} training pairs; if it means a missing answer, drop "
                f"these pairs with dataset.drop_labels=[{name}]"
            )


def _sentence_warnings(dataset: Dataset) -> Iterator[str]:
    """Warn if a sentence column equals or determines the label, or equals the other sentence column."""
    train = dataset.train
    if not isinstance(train, Pairs) or len(train) < _MIN_PAIRS or train.labels is None:
        return
    labels = np.asarray(train.labels)
    for role, column in (("sentence1_field", train.sentence1), ("sentence2_field", train.sentence2)):
        texts = Texts.of(column)
        _, rows = np.unique(texts.hashes, return_index=True)  # a row of each different text
        labelled_texts = len(np.unique(combine_hashes(texts.hashes, labels)))
        equal = _count_labels(texts, labels, dataset.labels)
        if 2 * equal > len(train):
            yield f"train: the label is the text of dataset.{role} in {equal} of {len(train)} pairs"
        elif labelled_texts == len(rows) > 1 and _MIN_REPEATS * len(rows) <= len(train):
            examples = elide(", ".join(map(repr, sorted(texts.take(rows))[:_LISTED])))
            yield (
                f"train: dataset.{role} has {len(rows)} different texts in {len(train)} pairs ({examples}), and each "
                "always has the same label: is it the label under another name?"
            )
    if train.sentence1 == train.sentence2:
        yield "train: both sentences are the same in every pair (dataset.sentence1_field, dataset.sentence2_field)"


def _count_labels(texts: Texts, labels: np.ndarray, names: Sequence[str]) -> int:
    """Return the number of texts that are the name of their pair's label, with few spaces around it."""
    longest = max(len(name.encode()) for name in names) + _MAX_SPACES
    rows = np.flatnonzero(np.diff(texts.offsets) <= longest)  # most texts are longer than any label
    return sum(names[labels[row]] == texts[row].strip() for row in rows.tolist())
