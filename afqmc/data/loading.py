"""From a dataset config to its splits: columns in memory, or a stream that is read anew each epoch."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional

from afqmc.data.config import DatasetConfig, Format, Source
from afqmc.data.download import fetch_zip
from afqmc.data.folds import Folds, make_folds
from afqmc.data.header import has_no_header, header_label
from afqmc.data.labels import label_name
from afqmc.data.pairs import Pairs as Pairs
from afqmc.data.pairs import PairStream as PairStream
from afqmc.data.pairs import label_to_index as label_to_index
from afqmc.data.pairs import to_columns as to_columns
from afqmc.data.pairs import update_digest
from afqmc.data.parsing import OnError, Pair, read_pairs
from afqmc.data.sample import sample_files
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.data.stream_changes import StreamTrace
from afqmc.utils.errors import InputError, did_you_mean, elide
from afqmc.utils.files import expand_user

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_FEW_LABELS = 20  # so many, or one for every second pair, may be classes


@dataclass(frozen=True)
class Dataset:
    """The splits and the names of their classes, in class order."""

    name: str
    labels: tuple[str, ...]
    train: Pairs | PairStream
    dev: Pairs
    test: Optional[Pairs] = None
    folds: Optional[Folds] = None  # of which train and dev are parts, where there are any
    notes: tuple[str, ...] = ()  # on how the files were read, each with the file's name

    def splits(self) -> dict[str, Pairs | PairStream]:
        """The splits there are, by name."""
        found = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}

    def reports(self) -> dict[str, ReadReport]:
        """What was left out of each file, by split; with folds, of the file that was cut."""
        found = {name: split.report for name, split in self.splits().items()}
        if self.folds is None:
            return found
        return {"train": self.folds.whole.report} | {name: found[name] for name in found if name == "test"}

    def left_out(self) -> dict[str, dict[str, Any]]:
        """For summary.json: the counts of the splits from which rows were left out."""
        return {name: counts for name, report in self.reports().items() if (counts := report.as_dict())}

    def label_counts(self, split: Pairs | PairStream) -> list[int]:
        """Pairs of each class in a split; all 0 where it has no labels."""
        if isinstance(split, PairStream):
            return split.label_counts
        counts = Counter(split.labels or ())
        return [counts[number] for number in range(len(self.labels))]


def resolve_files(config: DatasetConfig, fetch: bool = True) -> dict[str, DataFile]:
    """The file of each split that the config names; a download happens here.

    Args:
        config: Of the data set.
        fetch: Allow the download; without it, only a zip that is in the cache is found.

    Raises:
        InputError: naming the key, or the path that is not there.
    """
    for split in config.sources:
        if split != "test" and config.file_of(split) is None:
            raise InputError(
                f"dataset.{split}_file: is not set; it names the {split} pairs, as in dataset.{split}_file=FILE"
            )
    names = {split: name for split in config.sources if (name := config.file_of(split)) is not None}
    if config.source is Source.sample:
        return {split: _embedded(name) for split, name in names.items()}
    if config.source is Source.download and config.path is None:
        archive = fetch_zip(config, fetch)
        return {split: DataFile.in_zip(archive, name, config) for split, name in names.items()}
    base = expand_user(config.path or ".")
    if config.path is not None and not os.path.exists(base):  # Path.exists raises for a name that is too long
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
        raise InputError(f"{error}; a run on files of your own needs dataset=jsonl") from error


def _embedded(name: str) -> DataFile:
    files = sample_files()
    if name not in files:
        raise InputError(f"dataset=sample: has no file {name!r}{did_you_mean(name, files)}")
    return DataFile(f"sample/{name}", lambda: io.BytesIO(files[name]), Format.jsonl)


def read_split(
    config: DatasetConfig,
    split: str,
    file: DataFile,
    index: Optional[Mapping[str, int]] = None,
    complain: Optional[OnError] = None,
    report: Optional[ReadReport] = None,
) -> Iterator[Pair]:
    """The rows of a split, cut at ``max_<split>_samples``; train and dev must be labelled."""
    report, labelled = report or ReadReport(), None if split == "test" else True
    rows = read_pairs(file, config, labelled=labelled, index=index, complain=complain, report=report)
    yield from islice(rows, config.limit_of(split))
    report.refuse_too_many()  # again: the file may have more rows than the limit


def class_names(config: DatasetConfig, found: Mapping[str, int]) -> tuple[str, ...]:
    """The classes in order: as configured, or sorted as found in train, with their counts.

    Raises:
        InputError: when there are fewer than two, or one twice, or so many that they cannot be classes.
    """
    if config.labels is not None:
        names = tuple(label_name(name) for name in config.labels)
    else:
        names, pairs = tuple(sorted(found)), sum(found.values())
        if len(names) > max(_FEW_LABELS, pairs / 2):
            raise InputError(
                f"dataset.label_field={config.label_field}: {len(names)} different labels in {pairs} pairs, such as "
                f"{elide(', '.join(map(repr, names[:3])))}: is it the label? (dataset.labels=[...] sets the classes)"
            )
    if len(names) < 2:
        raise InputError(f"dataset.labels: two classes or more are needed, found {elide(str(list(names)))}")
    if len(set(names)) < len(names):
        raise InputError(f"dataset.labels={list(names)}: a name is there twice")
    return names


def load_dataset(config: DatasetConfig, complain: Optional[OnError] = None) -> Dataset:
    """Read and check all splits.

    Args:
        config: Of the data set.
        complain: Is called with each complaint about a row, and the row is left out. Without it, the first is raised.

    Raises:
        InputError: naming the key, or the file and line.
    """
    files = resolve_files(config)
    train: Pairs | PairStream
    if config.streaming:
        train, names = _open_stream(config, files["train"], complain)
    else:
        train, names = _read_train(config, files["train"], complain)
    others = {
        split: _columns(config, split, file, names, complain) for split, file in files.items() if split != "train"
    }
    notes = tuple(f"{file.name}: {note}" for file in files.values() for note in file.notes)
    if config.folds is not None and isinstance(train, Pairs):
        folds = make_folds(train, config, names)
        return Dataset(config.name, names, folds.train, folds.dev, others.get("test"), folds, notes)
    return Dataset(config.name, names, train, others["dev"], others.get("test"), notes=notes)


def load_dev(config: DatasetConfig, files: dict[str, DataFile], names: tuple[str, ...]) -> Pairs:
    """The dev split alone, of a data set whose files and classes are known.

    Raises:
        InputError: naming the key, or the file and line.
    """
    split = "dev" if config.folds is None else "train"
    found = _columns(config, split, files[split], names, None)
    return found if config.folds is None else make_folds(found, config, names).dev


def _read_train(config: DatasetConfig, file: DataFile, complain: Optional[OnError]) -> tuple[Pairs, tuple[str, ...]]:
    """The training pairs and the names of their classes."""
    report, index = ReadReport(file.name), _configured(config)
    rows = list(read_split(config, "train", file, index, complain, report))
    reject_empty(report, len(rows))
    counts = Counter(str(row.label) for row in rows)
    _refuse_header_class(config, file, rows[0], counts)
    names = class_names(config, counts)
    return to_columns(file.name, rows, label_to_index(names), report), names


def _refuse_header_class(config: DatasetConfig, file: DataFile, first: Pair, counts: Mapping[str, int]) -> None:
    """Check that the first training pair of a file without a header line is not a header line.

    Raises:
        InputError: for that row.
    """
    is_checked = config.labels is None and has_no_header(file.format, config)
    if is_checked and (reason := header_label(str(first.label), counts)):
        raise InputError(f"{file.name}:{first.line}: {reason}")


def _columns(
    config: DatasetConfig, split: str, file: DataFile, names: tuple[str, ...], complain: Optional[OnError]
) -> Pairs:
    """A split of known labels as columns; at least one row."""
    report, index = ReadReport(file.name), label_to_index(names)
    found = to_columns(file.name, read_split(config, split, file, index, complain, report), index, report)
    reject_empty(report, len(found))
    return found


def _configured(config: DatasetConfig) -> Optional[dict[str, int]]:
    """The class index of each label in ``dataset.labels``; None where train is to say which there are."""
    return None if config.labels is None else label_to_index(class_names(config, {}))


def all_sentences(data: Dataset) -> Iterator[str]:
    """The sentences that a vocabulary is learnt from: those of train."""
    if isinstance(data.train, Pairs):
        return itertools.chain(data.train.sentence1, data.train.sentence2)
    return (text for pair in data.train.read() for text in (pair.sentence1, pair.sentence2))


def reject_empty(report: ReadReport, pairs: int) -> None:
    """Check that a file has pairs.

    Raises:
        InputError: naming it, and what was left out.
    """
    if pairs == 0:
        left_out = f" ({'; '.join(notes)})" if (notes := report.notes()) else ""
        raise InputError(f"{report.file}: holds no pairs{left_out}")


def _open_stream(
    config: DatasetConfig, file: DataFile, complain: Optional[OnError]
) -> tuple[PairStream, tuple[str, ...]]:
    """One pass that checks every line and counts, in constant memory; the epochs then read the file themselves."""
    counts: Counter[str] = Counter()
    trace, report, index, first = StreamTrace(), ReadReport(file.name), _configured(config), None
    for row in read_split(config, "train", file, index, complain, report):
        first = first or row
        counts[str(row.label)] += 1
        trace.add(row)
    reject_empty(report, trace.count)
    assert first is not None
    _refuse_header_class(config, file, first, counts)
    names = class_names(config, counts)
    index = label_to_index(names)
    read = lambda: read_split(config, "train", file, index, complain and _say_nothing)  # noqa: E731
    return PairStream(file.name, read, index, [counts[name] for name in names], trace, report), names


def _say_nothing(_: str) -> None:
    """Reported already, by the first pass."""


def fingerprint(data: Dataset) -> str:
    """sha256 over the classes and, split by split, over sentences and labels in their order."""
    found = hashlib.sha256(repr(data.labels).encode())
    for name, split in data.splits().items():
        found.update(f"{name} {len(split)}".encode())
        _add_split(found, split)
    return found.hexdigest()


def split_digest(split: Pairs | PairStream, labels: Sequence[str]) -> str:
    """sha256 over the classes, and over the sentences and labels of one split in their order."""
    found = hashlib.sha256(repr(tuple(labels)).encode())
    _add_split(found, split)
    return found.hexdigest()


def sorted_digest(split: Pairs, labels: Sequence[str]) -> str:
    """sha256 over the classes and the sorted pairs of a split: the same for the same pairs in another order."""
    gold = split.labels or [0] * len(split)
    rows = list(zip(split.sentence1, split.sentence2, gold, strict=True))
    return split_digest(split.select(sorted(range(len(rows)), key=rows.__getitem__), split.file), labels)


def _add_split(digest: Hash, split: Pairs | PairStream) -> None:
    if isinstance(split, Pairs):
        for column in (split.sentence1, split.sentence2, [str(label) for label in split.labels or ()]):
            update_digest(digest, column)
    else:
        digest.update(split.digest.encode())
