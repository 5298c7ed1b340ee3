"""The ``dataset`` group: which pairs, from where, under which names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Optional

from afqmc.errors import InputError, nearest
from afqmc.knobs import knob

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
    "format", "delimiter", "encoding", "columns", "sentence1_field", "sentence2_field", "label_field", "id_field",
)  # fmt: skip


@dataclass
class DatasetConfig:
    """Pairs of sentences with a class each. Field names are the columns or JSON keys of the files."""

    name: str = knob("jsonl", "what the data set is called in tables and in W&B")
    source: Source = knob(Source.files, "files, download or sample")
    path: Optional[str] = knob(None, "directory or zip that holds the files below")
    train_file: Optional[str] = knob(None, "training pairs; relative to path, if there is one")
    dev_file: Optional[str] = knob(None, "labelled pairs that choose the best weights")
    test_file: Optional[str] = knob(None, "pairs to predict, with or without labels")
    format: Format = knob(Format.auto, "auto (by suffix), jsonl, csv or tsv")
    columns: Optional[list[str]] = knob(None, "column names of a csv or tsv file without a header line")
    sentence1_field: str = knob("sentence1", "key or column of the first sentence")
    sentence2_field: str = knob("sentence2", "key or column of the second sentence")
    label_field: str = knob("label", "key or column of the label")
    id_field: str = knob("id", "key or column of the pair's id; the row's number from 0 where there is none")
    labels: Optional[list[str]] = knob(None, "label names in class order; null takes the sorted names in train")
    drop_labels: Optional[list[str]] = knob(None, "rows with these labels are left out, as [-] for 'no agreement'")
    on_bad_row: OnBadRow = knob(OnBadRow.fail, "fail, or skip: leave out invalid rows, as long as they are few")
    folds: Optional[int] = knob(
        None, "how many folds train_file is cut into; one becomes dev, dev_file is not read", ge=2
    )
    fold: Optional[int] = knob(None, "the fold that is dev, from 0; the others are train", ge=0)
    fold_seed: int = knob(0, "of the cut; the run's own seed does not change it", ge=0, lt=2**32)
    grouped: bool = knob(True, "folds: pairs that share a sentence, directly or by way of others, stay in one fold")
    max_length: int = knob(512, "tokens a pair at most, [CLS] and [SEP]s included; longer ones are cut", ge=8)
    max_train_samples: Optional[int] = knob(None, "pairs: only the first so many", ge=1)
    max_dev_samples: Optional[int] = knob(None, "pairs: only the first so many", ge=1)
    max_test_samples: Optional[int] = knob(None, "pairs: only the first so many", ge=1)
    batching: Batching = knob(Batching.bucketed, "random, bucketed, or tokens (batch_tokens instead of batch_size)")
    batch_tokens: int = knob(2048, "places of a batch at most, padding included, with batching=tokens", ge=8)
    streaming: bool = knob(False, "read the training file anew each epoch instead of holding it in memory")
    shuffle_buffer: int = knob(10_000, "pairs held for shuffling when streaming", ge=1)
    url: Optional[str] = knob(None, "address of the zip to download; change it for a mirror")
    checksums: Optional[dict[str, str]] = knob({}, "sha256 of each file inside a downloaded zip; {} checks none")
    cache_dir: Optional[str] = knob(None, "downloads and tokenised splits; default $AFQMC_CACHE, then ~/.cache/afqmc")

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
        """The format of one file, ``auto`` resolved by its suffix; unknown suffixes are JSON lines."""
        if self.format is not Format.auto:
            return self.format
        return {".csv": Format.csv, ".tsv": Format.tsv, ".txt": Format.tsv}.get(path.suffix.lower(), Format.jsonl)


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
            raise InputError(f"{shown}: has no {name!r}, which dataset.{role} names{nearest(name, columns)}")
