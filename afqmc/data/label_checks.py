"""Signs that the columns or labels of a data set are not what its config takes them for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from afqmc.data.labels import appearance, code_points, look_alikes
from afqmc.data.loading import Dataset
from afqmc.data.pairs import Pairs
from afqmc.utils.errors import elide

_NO_ANSWER = {"-", "-1.0", "?", "nan", "null", "none", "n/a", "na", "unknown"}  # as ``appearance`` gives them
_FEWEST = 20  # pairs from which a pattern is no chance
_REPEATED = 10  # times that a text occurs on average in a column of labels
_LISTED = 3


def label_warnings(dataset: Dataset) -> list[str]:
    """A sentence for each sign."""
    return [*_rows(dataset), *_labels(dataset), *_sentences(dataset)]


def _rows(dataset: Dataset) -> Iterator[str]:
    """Invalid rows that were skipped, and labels to drop that do not occur."""
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


def _labels(dataset: Dataset) -> Iterator[str]:
    """Labels that look alike, and labels that stand for no answer."""
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
                f"label {name!r} is a class, with {counts[name]} training pairs; if it stands for pairs without an "
                f"answer, dataset.drop_labels=[{name}] leaves them out"
            )


def _sentences(dataset: Dataset) -> Iterator[str]:
    """A sentence column that is, or determines, the label; or that equals the other one."""
    train = dataset.train
    if not isinstance(train, Pairs) or len(train) < _FEWEST or train.labels is None:
        return
    for role, column in (("sentence1_field", train.sentence1), ("sentence2_field", train.sentence2)):
        texts, pairs = set(column), set(zip(column, train.labels, strict=True))
        equal = sum(dataset.labels[label] == text.strip() for text, label in zip(column, train.labels, strict=True))
        if 2 * equal > len(train):
            yield f"train: the label is the text of dataset.{role} in {equal} of {len(train)} pairs"
        elif len(pairs) == len(texts) > 1 and _REPEATED * len(texts) <= len(train):
            some = elide(", ".join(map(repr, sorted(texts)[:_LISTED])))
            yield (
                f"train: dataset.{role} has {len(texts)} different texts in {len(train)} pairs ({some}), and each "
                "always has the same label: is it the label under another name?"
            )
    if train.sentence1 == train.sentence2:
        yield "train: both sentences are the same in every pair (dataset.sentence1_field, dataset.sentence2_field)"
