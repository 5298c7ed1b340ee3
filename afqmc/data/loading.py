"""Load the splits that a dataset config names, into memory or as a stream."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from afqmc.data.columns import Ints
from afqmc.data.config import DatasetConfig, Format, Source
from afqmc.data.download import fetch_zip
from afqmc.data.folds import Folds, make_folds
from afqmc.data.header import has_no_header, header_label
from afqmc.data.labels import label_name
from afqmc.data.pairs import Pairs as Pairs
from afqmc.data.pairs import PairStream as PairStream
from afqmc.data.pairs import label_texts, update_digest
from afqmc.data.pairs import label_to_index as label_to_index
from afqmc.data.pairs import to_columns as to_columns
from afqmc.data.parsing import OnError, OnRow, Pair, read_pairs
from afqmc.data.sample import sample_files
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.data.stream_changes import StreamTrace
from afqmc.utils.errors import InputError, did_you_mean, elide
from afqmc.utils.files import expand_user

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_MAX_CLASSES = 20  # or half the number of pairs; a column with more distinct values is probably not the label


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set and its class names.

    Attributes:
        name: What messages call the data set.
        labels: Class names; a class index is a position in this tuple.
        train: Training pairs.
        dev: Pairs that choose the best weights.
        test: Pairs to predict, with or without labels.
        folds: The cross-validation folds that train and dev were cut from, if any.
        notes: Remarks on how the files were read, each beginning with the file's name.
    """

    name: str
    labels: tuple[str, ...]
    train: Pairs | PairStream
    dev: Pairs
    test: Pairs | None = None
    folds: Folds | None = None
    notes: tuple[str, ...] = ()

    def splits(self) -> dict[str, Pairs | PairStream]:
        """Return the splits by name, without a missing test split."""
        splits = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def reports(self) -> dict[str, ReadReport]:
        """Return the report on skipped rows of each file, by split. With folds, train and dev share one file."""
        reports = {name: split.report for name, split in self.splits().items()}
        if self.folds is None:
            return reports
        return {"train": self.folds.pairs.report} | {name: reports[name] for name in reports if name == "test"}

    def left_out(self) -> dict[str, dict[str, Any]]:
        """Return the counts of skipped rows for summary.json, for the splits that have any."""
        return {name: counts for name, report in self.reports().items() if (counts := report.as_dict())}

    def label_counts(self, split: Pairs | PairStream) -> list[int]:
        """Return the number of pairs per class, in class order; all 0 if the split has no labels."""
        if isinstance(split, PairStream):
            return split.label_counts
        labels = np.asarray(split.labels or (), np.int64)
        counts: list[int] = np.bincount(labels[labels >= 0], minlength=len(self.labels)).tolist()
        return counts


def resolve_files(config: DatasetConfig, fetch: bool = True) -> dict[str, DataFile]:
    """Return the file of each split that the config names, downloading a zip if necessary.

    Args:
        config: The dataset group.
        fetch: Whether a download is allowed; otherwise only a cached zip is used.

    Raises:
        InputError: naming the key, or the missing path.
    """
    for split in config.sources:
        if split != "test" and config.file_of(split) is None:
            folds = "; dataset.num_folds=5 dataset.fold=0 uses a fifth of train instead" if split == "dev" else ""
            raise InputError(
                f"dataset.{split}_file: is not set; it names the {split} pairs, as in dataset.{split}_file=FILE{folds}"
            )
    names = {split: name for split in config.sources if (name := config.file_of(split)) is not None}
    if config.source is Source.sample:
        return {split: _embedded(name) for split, name in names.items()}
    if config.source is Source.url and config.path is None:
        archive = fetch_zip(config, fetch)
        return {split: DataFile.in_zip(archive, name, config) for split, name in names.items()}
    base = expand_user(config.path or ".")
    if config.path is not None and not os.path.exists(base):  # Path.exists raises OSError for an overlong name
        raise InputError(f"dataset.path={config.path}: no such directory or zip (looked at {base.absolute()})")
    try:
        if config.path is not None and base.is_file():
            return {split: DataFile.in_zip(base, name, config) for split, name in names.items()}
        return {
            split: DataFile.on_disk(base / expand_user(name), config, f"dataset.{split}_file")
            for split, name in names.items()
        }
    except InputError as error:
        if config.source is Source.files:
            raise
        raise InputError(f"{error}; a run on files of your own needs dataset=files") from error


def _embedded(name: str) -> DataFile:
    files = sample_files()
    if name not in files:
        raise InputError(f"dataset=sample: has no file {name!r}{did_you_mean(name, files)}")
    return DataFile(f"sample/{name}", lambda: io.BytesIO(files[name]), Format.jsonl)


def read_split(
    config: DatasetConfig,
    split: str,
    file: DataFile,
    index: Mapping[str, int] | None = None,
    on_error: OnError | None = None,
    report: ReadReport | None = None,
    on_row: OnRow | None = None,
) -> Iterator[Pair]:
    """Yield the first ``max_<split>_samples`` pairs of a split; see ``read_pairs``. Train and dev must be labelled."""
    report, labelled = report or ReadReport(), None if split == "test" else True
    pairs = read_pairs(file, config, labelled=labelled, index=index, on_error=on_error, report=report, on_row=on_row)
    yield from islice(pairs, config.limit_of(split))
    report.reject_too_many()  # read_pairs checks only at the end of the file, which a limit may not reach


def class_names(config: DatasetConfig, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the class names in order: ``dataset.labels``, or the sorted labels of train.

    Args:
        config: The dataset group.
        counts: Training pairs per label; not used if ``dataset.labels`` is set.

    Raises:
        InputError: for fewer than two classes, a repeated name, or so many labels that they cannot be classes.
    """
    if config.labels is not None:
        names = tuple(label_name(name) for name in config.labels)
    else:
        names, pairs = tuple(sorted(counts)), sum(counts.values())
        if len(names) > max(_MAX_CLASSES, pairs / 2):
            raise InputError(
                f"dataset.label_field={config.label_field}: {len(names)} different labels in {pairs} pairs, such as "
                f"{elide(', '.join(map(repr, names[:3])))}: is it the label? (dataset.labels=[...] sets the classes)"
            )
    if len(names) < 2:
        raise InputError(f"dataset.labels: two classes or more are needed, found {elide(str(list(names)))}")
    if len(set(names)) < len(names):
        raise InputError(f"dataset.labels={list(names)}: a name appears twice")
    return names


def load_dataset(config: DatasetConfig, on_error: OnError | None = None) -> Dataset:
    """Read and check all splits.

    Args:
        config: The dataset group.
        on_error: Called with the message for each invalid row, which is then skipped. Without it, the first invalid
            row raises.

    Raises:
        InputError: naming the key, or the file and line.
    """
    files = resolve_files(config)
    train: Pairs | PairStream
    if config.streaming:
        train, names = _open_stream(config, files["train"], on_error)
    else:
        train, names = _read_train(config, files["train"], on_error)
    others = {
        split: _read_columns(config, split, file, names, on_error) for split, file in files.items() if split != "train"
    }
    notes = tuple(f"{file.name}: {note}" for file in files.values() for note in file.notes)
    if config.num_folds is not None and isinstance(train, Pairs):
        folds = make_folds(train, config, names)
        return Dataset(config.name, names, folds.train, folds.dev, others.get("test"), folds, notes)
    return Dataset(config.name, names, train, others["dev"], others.get("test"), notes=notes)


def load_dev(config: DatasetConfig, files: dict[str, DataFile], names: tuple[str, ...]) -> Pairs:
    """Read only the dev split; with folds, by reading train and cutting it again.

    Raises:
        InputError: naming the key, or the file and line.
    """
    split = "dev" if config.num_folds is None else "train"
    pairs = _read_columns(config, split, files[split], names, None)
    return pairs if config.num_folds is None else make_folds(pairs, config, names).dev


def _read_train(config: DatasetConfig, file: DataFile, on_error: OnError | None) -> tuple[Pairs, tuple[str, ...]]:
    """Return the training pairs and the class names."""
    report, valid = ReadReport(file.name), _configured_index(config)
    order: defaultdict[str, int] = defaultdict(lambda: len(order))  # labels by their first occurrence
    pairs = to_columns(file.name, read_split(config, "train", file, valid, on_error, report), order, report)
    reject_empty(report, len(pairs))
    labels = np.asarray(pairs.labels)
    counts = dict(zip(order, np.bincount(labels).tolist(), strict=True))
    _reject_header_class(config, file, next(iter(order)), pairs.line(0), counts)
    names = class_names(config, counts)
    index = label_to_index(names)
    return replace(pairs, labels=Ints(np.array([index[name] for name in order])[labels])), names


def _reject_header_class(
    config: DatasetConfig, file: DataFile, label: str, line: int, counts: Mapping[str, int]
) -> None:
    """Check that the first pair of a training file declared to have no header line is not a header line.

    Raises:
        InputError: naming that line.
    """
    is_checked = config.labels is None and has_no_header(file.format, config)
    if is_checked and (reason := header_label(label, counts)):
        raise InputError(f"{file.name}:{line}: {reason}")


def _read_columns(
    config: DatasetConfig, split: str, file: DataFile, names: tuple[str, ...], on_error: OnError | None
) -> Pairs:
    """Read a non-empty split whose labels are among the class names."""
    report, index = ReadReport(file.name), label_to_index(names)
    pairs = to_columns(file.name, read_split(config, split, file, index, on_error, report), index, report)
    reject_empty(report, len(pairs))
    return pairs


def _configured_index(config: DatasetConfig) -> dict[str, int] | None:
    """Return the class index of each label in ``dataset.labels``; None if train defines the classes."""
    return None if config.labels is None else label_to_index(class_names(config, {}))


def all_sentences(data: Dataset) -> Iterator[str]:
    """Yield the sentences of train, from which a vocabulary is learned."""
    if isinstance(data.train, Pairs):
        return itertools.chain(data.train.sentence1, data.train.sentence2)
    return (text for pair in data.train.read() for text in (pair.sentence1, pair.sentence2))


def reject_empty(report: ReadReport, pairs: int) -> None:
    """Check that a file has at least one pair.

    Raises:
        InputError: naming the file and the rows that were skipped.
    """
    if pairs == 0:
        left_out = f" ({'; '.join(notes)})" if (notes := report.notes()) else ""
        raise InputError(f"{report.file}: holds no pairs{left_out}")


def _open_stream(config: DatasetConfig, file: DataFile, on_error: OnError | None) -> tuple[PairStream, tuple[str, ...]]:
    """Check and count all rows in one pass and constant memory; each epoch then reads the file again."""
    counts: Counter[str] = Counter()
    trace, report, index, first = StreamTrace(), ReadReport(file.name), _configured_index(config), None
    for pair in read_split(config, "train", file, index, on_error, report):
        first = first or pair
        counts[str(pair.label)] += 1
        trace.add(pair)
    reject_empty(report, trace.count)
    assert first is not None
    _reject_header_class(config, file, str(first.label), first.line, counts)
    names = class_names(config, counts)
    index = label_to_index(names)
    read = lambda: read_split(config, "train", file, index, on_error and _ignore_error)  # noqa: E731
    return PairStream(file.name, read, index, [counts[name] for name in names], trace, report), names


def _ignore_error(_: str) -> None:
    """Skip an invalid row silently, since the first pass has reported it."""


def fingerprint(data: Dataset) -> str:
    """Return the sha256 of the class names and of the sentences and labels of all splits, in order."""
    digest = hashlib.sha256(repr(data.labels).encode())
    for name, split in data.splits().items():
        digest.update(f"{name} {len(split)}".encode())
        _add_split(digest, split)
    return digest.hexdigest()


def split_digest(split: Pairs | PairStream, labels: Sequence[str]) -> str:
    """Return the sha256 of the class names and of the sentences and labels of one split, in order."""
    digest = hashlib.sha256(repr(tuple(labels)).encode())
    _add_split(digest, split)
    return digest.hexdigest()


def sorted_digest(split: Pairs, labels: Sequence[str]) -> str:
    """Return the ``split_digest`` of the sorted pairs, which does not depend on their order in the file."""
    gold = split.labels or [0] * len(split)
    rows = list(zip(split.sentence1, split.sentence2, gold, strict=True))
    return split_digest(split.select(sorted(range(len(rows)), key=rows.__getitem__), split.file), labels)


def _add_split(digest: Hash, split: Pairs | PairStream) -> None:
    if isinstance(split, Pairs):
        for column in (split.sentence1, split.sentence2, label_texts(split.labels)):
            update_digest(digest, column)
    else:
        digest.update(split.digest.encode())
