"""Config of the ``dataset`` group: files, their format, columns, labels, folds and batching."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Optional

from afqmc.utils.errors import InputError, suggest
from afqmc.utils.fields import config_field

_ROLES = ("sentence1_field", "sentence2_field", "label_field", "id_field")


class Source(Enum):
    """Where the files come from."""

    files = "files"  # the user's train_file, dev_file and test_file
    url = "url"  # a zip, downloaded once into the cache unless `path` names a copy
    sample = "sample"  # embedded in this package


class Format(Enum):
    """File format."""

    auto = "auto"  # by the suffix
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    xlsx = "xlsx"
    parquet = "parquet"


class Quoting(Enum):
    """Meaning of quotation marks around the cells of a CSV or TSV file."""

    auto = "auto"  # double in CSV, and in TSV if every header cell is quoted; none in other TSV
    double = "double"  # they enclose a cell with delimiters or line breaks; a mark inside is written twice
    none = "none"  # ordinary text


class OnBadRow(Enum):
    """Treatment of invalid rows."""

    fail = "fail"  # the first one is an error
    skip = "skip"  # they are skipped, counted and reported; too many are an error


class Batching(Enum):
    """How pairs are grouped into batches."""

    random = "random"  # at random, as in the tutorial
    length = "length"  # by similar length, which saves padding; the batches are in random order
    token_budget = "token_budget"  # noqa: S105 by length, with as many pairs as max_tokens_per_batch allows


class Swap(Enum):
    """Use of (b, a) in addition to each pair (a, b)."""

    none = "none"
    augment = "augment"  # in training
    both = "both"  # in training, and evaluation and prediction use the mean of both orders


# keys that say how to read a file; predict and evaluate accept other values for another file
READING = ("format", "delimiter", "quoting", "encoding", "columns", *_ROLES)


@dataclass
class DatasetConfig:
    """Labelled sentence pairs. The ``*_field`` keys name columns or JSON keys of the files."""

    name: str = config_field("files", "name of the data set in tables and in W&B")
    source: Source = config_field(Source.files, "files, url or sample")
    path: Optional[str] = config_field(None, "directory or zip with the files below")
    train_file: Optional[str] = config_field(None, "training pairs; relative to path, if there is one")
    dev_file: Optional[str] = config_field(None, "labelled pairs that choose the best weights")
    test_file: Optional[str] = config_field(None, "pairs to predict, with or without labels")
    format: Format = config_field(
        Format.auto, "auto (by the suffix, ignoring .gz and similar), jsonl, csv, tsv, xlsx or parquet"
    )
    encoding: str = config_field(
        "auto", "auto (UTF-8, UTF-16 with BOM, GB18030 if certain), or a codec: gb18030, big5, ..."
    )
    delimiter: Optional[str] = config_field(
        None, "one character between cells, \\t for a tab; null: a comma in csv, a tab in tsv"
    )
    quoting: Quoting = config_field(
        Quoting.auto, "quotation marks around cells: auto (csv: double; tsv: by the header), double or none"
    )
    columns: Optional[list[str]] = config_field(None, "column names of a csv, tsv or xlsx file without a header line")
    sentence1_field: str = config_field("sentence1", "key or column of the first sentence")
    sentence2_field: str = config_field("sentence2", "key or column of the second sentence")
    label_field: str = config_field("label", "key or column of the label")
    id_field: str = config_field("id", "key or column of the pair's id; without a column id, rows are numbered from 0")
    labels: Optional[list[str]] = config_field(None, "label names in class order; null: the sorted labels of train")
    drop_labels: Optional[list[str]] = config_field(
        None, "drop rows with these labels, for example [-] for pairs without annotator agreement"
    )
    on_bad_row: OnBadRow = config_field(OnBadRow.fail, "fail, or skip: skip a small number of invalid rows")
    num_folds: Optional[int] = config_field(
        None, "number of folds to split train_file into; one becomes dev, and dev_file is not read", ge=2
    )
    fold: Optional[int] = config_field(None, "the fold that is dev, from 0; the others are train", ge=0)
    split_seed: int = config_field(0, "seed of the split into folds, independent of the run's seed", ge=0, lt=2**32)
    group_by_sentence: bool = config_field(
        True, "keep pairs that share a sentence, directly or through other pairs, in the same fold"
    )
    max_length: int = config_field(
        512, "maximum tokens per pair, including [CLS] and [SEP]; longer pairs are truncated", ge=8
    )
    max_train_samples: Optional[int] = config_field(
        None, "use at most this many training pairs, from the start of the file", ge=1
    )
    max_dev_samples: Optional[int] = config_field(
        None, "use at most this many dev pairs, from the start of the file", ge=1
    )
    max_test_samples: Optional[int] = config_field(
        None, "use at most this many test pairs, from the start of the file", ge=1
    )
    batching: Batching = config_field(
        Batching.length, "random, length, or token_budget (max_tokens_per_batch instead of batch_size)"
    )
    max_tokens_per_batch: int = config_field(
        2048, "maximum tokens per batch, including padding, with batching=token_budget", ge=8
    )
    swap: Swap = config_field(
        Swap.none,
        "none, augment (train on each pair also with its sentences swapped), or both (also evaluate and predict with "
        "the mean of both orders)",
    )
    transitive: bool = config_field(
        False, "add pairs to train that follow from others: a = b and b = c give a = c, a = b and b != c give a != c"
    )
    teacher: Optional[str] = config_field(
        None,
        "directory of a sweep over dataset.fold of this training file, whose models objective=distillation imitates",
    )
    unlabelled_file: Optional[str] = config_field(
        None, "further pairs to train on, which the models of dataset.teacher score; labels in it are ignored"
    )
    streaming: bool = config_field(False, "read the training file in each epoch instead of keeping it in memory")
    shuffle_buffer_size: int = config_field(10_000, "pairs that are shuffled together when streaming", ge=1)
    url: Optional[str] = config_field(None, "address of the zip to download; change it for a mirror")
    checksums: Optional[dict[str, str]] = config_field(
        {}, "sha256 of each file inside a downloaded zip; {} disables the check"
    )
    cache_dir: Optional[str] = config_field(
        None, "directory for downloads and tokenised splits; default $AFQMC_CACHE, then ~/.cache/afqmc"
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The splits that have a file. With folds, dev is cut from the training file."""
        return ("train", "dev", "test") if self.num_folds is None else ("train", "test")

    def file_of(self, split: str) -> str | None:
        """Return the configured file of ``train``, ``dev`` or ``test``."""
        file: str | None = getattr(self, f"{split}_file")
        return file

    def limit_of(self, split: str) -> int | None:
        """Return the maximum number of pairs to read from a split; None for all."""
        limit: int | None = getattr(self, f"max_{split}_samples")
        return limit

    def format_of(self, path: Path) -> Format:
        """Return the format of a file; ``auto`` goes by the suffix, ignoring a suffix for compression.

        Other suffixes mean CSV if a delimiter is set, otherwise JSON lines.
        """
        if self.format is not Format.auto:
            return self.format
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        suffix = "".join(suffixes[:-1] if suffixes and suffixes[-1] in _COMPRESSED else suffixes[-1:])
        default = Format.csv if self.delimiter and suffix not in (".json", ".jsonl") else Format.jsonl
        return _SUFFIXES.get(suffix, default)

    def delimiter_of(self, format: Format) -> str:
        """Return the character between the cells of a CSV or TSV file."""
        delimiter = "\t" if self.delimiter == r"\t" else self.delimiter
        return delimiter or ("\t" if format is Format.tsv else ",")


_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_SUFFIXES = {
    ".csv": Format.csv,
    ".tsv": Format.tsv,
    ".txt": Format.tsv,
    ".xlsx": Format.xlsx,
    ".xlsm": Format.xlsx,
    ".parquet": Format.parquet,
    ".pq": Format.parquet,
}


def check_reading(dataset: DatasetConfig) -> None:
    """Check ``encoding`` and ``delimiter``.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    try:
        "".encode("utf-8" if dataset.encoding == "auto" else dataset.encoding)
    except (LookupError, ValueError) as error:
        raise InputError(
            f"dataset.encoding={dataset.encoding}: no such encoding; allowed: auto, utf-8, utf-16, gb18030, or another "
            "text codec of Python, such as big5"
        ) from error
    mark = dataset.delimiter
    if mark is not None and mark != r"\t" and (len(mark) != 1 or mark in '"\r\n\0\ufeff'):
        raise InputError(
            f"dataset.delimiter={mark}: must be one character, not a quotation mark or line break; \\t is a tab, and "
            """a semicolon is written as 'dataset.delimiter=";"'"""
        )


def check_column_keys(dataset: DatasetConfig, labelled: bool = True) -> None:
    """Check that the ``*_field`` keys name different columns, and that ``columns`` contains them.

    Args:
        dataset: The dataset group.
        labelled: Whether the label column is read.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    fields = {role: getattr(dataset, role) for role in _ROLES if labelled or role != "label_field"}
    roles: dict[str, str] = {}
    for role, name in fields.items():
        if not name.strip():
            raise InputError(f"dataset.{role}={name!r}: must be the name of a column or key")
        if (same := roles.setdefault(name, role)) != role:
            raise InputError(f"dataset.{role}={name}: dataset.{same} is the same column; they need different columns")
    if (columns := dataset.columns) is None:
        return
    shown = f"dataset.columns=[{', '.join(map(str, columns))}]"
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(f"{shown}: {repeated[0]!r} appears twice; column names must be unique")
    for role, name in fields.items():
        if name not in columns and not (role == "id_field" and name == DatasetConfig.id_field):
            raise InputError(f"{shown}: has no {name!r}, which dataset.{role} names{suggest(name, columns)}")
