"""The ``dataset`` group: which pairs, from where, under which names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Optional

from afqmc.utils.errors import InputError, suggest
from afqmc.utils.fields import config_field

_ROLES = ("sentence1_field", "sentence2_field", "label_field", "id_field")


class Source(Enum):
    """Where the files are."""

    files = "files"  # a person's own: train_file, dev_file, test_file
    download = "download"  # a zip fetched once into the cache, unless `path` names a copy
    sample = "sample"  # embedded in this package


class Format(Enum):
    """How a file is written."""

    auto = "auto"  # by its suffix
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    xlsx = "xlsx"
    parquet = "parquet"


class Quoting(Enum):
    """What quotation marks around the cells of a CSV or TSV file are."""

    auto = "auto"  # double in CSV, and in TSV whose header has every cell in them; none in other TSV
    double = "double"  # not part of the cell, which may hold delimiters and line breaks; one inside is doubled
    none = "none"  # text like any other


class OnBadRow(Enum):
    """What happens to a row that is invalid."""

    fail = "fail"  # the file is refused
    skip = "skip"  # the row is left out, counted and reported; too many are refused


class Batching(Enum):
    """Which pairs share a batch."""

    random = "random"  # any: the tutorial's way
    bucketed = "bucketed"  # pairs of similar length: less padding, the batches themselves in random order
    tokens = "tokens"  # bucketed, and as many pairs as batch_tokens allows: short pairs in large batches


READING = (  # the keys about how a file is read: predict and evaluate take other values for another file
    "format", "delimiter", "quoting", "encoding", "columns",
    "sentence1_field", "sentence2_field", "label_field", "id_field",
)  # fmt: skip


@dataclass
class DatasetConfig:
    """Pairs of sentences with a class each. Field names are the columns or JSON keys of the files."""

    name: str = config_field("jsonl", "what the data set is called in tables and in W&B")
    source: Source = config_field(Source.files, "files, download or sample")
    path: Optional[str] = config_field(None, "directory or zip that holds the files below")
    train_file: Optional[str] = config_field(None, "training pairs; relative to path, if there is one")
    dev_file: Optional[str] = config_field(None, "labelled pairs that choose the best weights")
    test_file: Optional[str] = config_field(None, "pairs to predict, with or without labels")
    format: Format = config_field(
        Format.auto, "auto (by suffix, before .gz and the like), jsonl, csv, tsv, xlsx or parquet"
    )
    encoding: str = config_field(
        "auto", "auto (UTF-8, UTF-16 with BOM, GB18030 where certain), or a codec: gb18030, big5, ..."
    )
    delimiter: Optional[str] = config_field(
        None, "one character between the cells, \\\\t a tab; null: a comma in csv, a tab in tsv"
    )
    quoting: Quoting = config_field(
        Quoting.auto, 'auto (csv: double; tsv: by its header), double or none: "" around cells'
    )
    columns: Optional[list[str]] = config_field(None, "column names of a csv, tsv or xlsx file without a header line")
    sentence1_field: str = config_field("sentence1", "key or column of the first sentence")
    sentence2_field: str = config_field("sentence2", "key or column of the second sentence")
    label_field: str = config_field("label", "key or column of the label")
    id_field: str = config_field("id", "key or column of the pair's id; without a column id, the row's number from 0")
    labels: Optional[list[str]] = config_field(None, "label names in class order; null takes the sorted names in train")
    drop_labels: Optional[list[str]] = config_field(
        None, "rows with these labels are left out, as [-] for 'no agreement'"
    )
    on_bad_row: OnBadRow = config_field(OnBadRow.fail, "fail, or skip: leave out invalid rows, as long as they are few")
    folds: Optional[int] = config_field(
        None, "how many folds train_file is cut into; one becomes dev, dev_file is not read", ge=2
    )
    fold: Optional[int] = config_field(None, "the fold that is dev, from 0; the others are train", ge=0)
    fold_seed: int = config_field(0, "of the cut; the run's own seed does not change it", ge=0, lt=2**32)
    grouped: bool = config_field(
        True, "folds: pairs that share a sentence, directly or by way of others, stay in one fold"
    )
    max_length: int = config_field(512, "tokens a pair at most, [CLS] and [SEP]s included; longer ones are cut", ge=8)
    max_train_samples: Optional[int] = config_field(None, "pairs: only the first so many", ge=1)
    max_dev_samples: Optional[int] = config_field(None, "pairs: only the first so many", ge=1)
    max_test_samples: Optional[int] = config_field(None, "pairs: only the first so many", ge=1)
    batching: Batching = config_field(
        Batching.bucketed, "random, bucketed, or tokens (batch_tokens instead of batch_size)"
    )
    batch_tokens: int = config_field(2048, "places of a batch at most, padding included, with batching=tokens", ge=8)
    streaming: bool = config_field(False, "read the training file anew each epoch instead of holding it in memory")
    shuffle_buffer: int = config_field(10_000, "pairs held for shuffling when streaming", ge=1)
    url: Optional[str] = config_field(None, "address of the zip to download; change it for a mirror")
    checksums: Optional[dict[str, str]] = config_field(
        {}, "sha256 of each file inside a downloaded zip; {} checks none"
    )
    cache_dir: Optional[str] = config_field(
        None, "downloads and tokenised splits; default $AFQMC_CACHE, then ~/.cache/afqmc"
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The splits that are read from a file of their own: with folds, dev is a part of train's."""
        return ("train", "dev", "test") if self.folds is None else ("train", "test")

    def file_of(self, split: str) -> Optional[str]:
        """The file of ``train``, ``dev`` or ``test``."""
        found: Optional[str] = getattr(self, f"{split}_file")
        return found

    def limit_of(self, split: str) -> Optional[int]:
        """How many pairs of the split are wanted at most."""
        found: Optional[int] = getattr(self, f"max_{split}_samples")
        return found

    def format_of(self, path: Path) -> Format:
        """The format of one file, ``auto`` resolved by its suffix; unknown suffixes are JSON lines.

        A suffix for compression is left out, as in ``train.csv.gz``. With a delimiter, unknown suffixes are CSV.
        """
        if self.format is not Format.auto:
            return self.format
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        suffix = "".join(suffixes[:-1] if suffixes and suffixes[-1] in _COMPRESSED else suffixes[-1:])
        unknown = Format.csv if self.delimiter and suffix not in (".json", ".jsonl") else Format.jsonl
        return _SUFFIXES.get(suffix, unknown)

    def delimiter_of(self, format: Format) -> str:
        """The character between the cells of a CSV or TSV file."""
        given = "\t" if self.delimiter == r"\t" else self.delimiter
        return given or ("\t" if format is Format.tsv else ",")


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
    """Check the keys that say how files are read.

    Raises:
        InputError: naming the key, its value and what is legal.
    """
    try:
        "".encode("utf-8" if dataset.encoding == "auto" else dataset.encoding)
    except (LookupError, ValueError) as error:
        raise InputError(
            f"dataset.encoding={dataset.encoding}: no such encoding; legal: auto, utf-8, utf-16, gb18030, or another "
            "text codec of Python, such as big5"
        ) from error
    mark = dataset.delimiter
    if mark is not None and mark != r"\t" and (len(mark) != 1 or mark in '"\r\n\0\ufeff'):
        raise InputError(
            f"dataset.delimiter={mark}: must be one character, no quotation mark or line break; \\t is a tab, and "
            """a semicolon is written as 'dataset.delimiter=";"'"""
        )


def check_columns(dataset: DatasetConfig, labelled: bool = True) -> None:
    """Check that each role has a column of its own, and that ``columns`` has a column for each role.

    Args:
        dataset: The names of the columns or keys.
        labelled: Whether the label column is read.

    Raises:
        InputError: naming the key, its value and what is legal.
    """
    fields = {role: getattr(dataset, role) for role in _ROLES if labelled or role != "label_field"}
    roles: dict[str, str] = {}
    for role, name in fields.items():
        if not name.strip():
            raise InputError(f"dataset.{role}={name!r}: must be the name of a column or key")
        if (other := roles.setdefault(name, role)) != role:
            raise InputError(
                f"dataset.{role}={name}: dataset.{other} is the same column; each of them needs a column of its own"
            )
    if (columns := dataset.columns) is None:
        return
    shown = f"dataset.columns=[{', '.join(map(str, columns))}]"
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(f"{shown}: {repeated[0]!r} is there twice; each column needs a name of its own")
    for role, name in fields.items():
        if name not in columns and not (role == "id_field" and name == DatasetConfig.id_field):
            raise InputError(f"{shown}: has no {name!r}, which dataset.{role} names{suggest(name, columns)}")
