"""What tells texts from other texts: checksums of columns and of whole data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from afqmc.dataset.columns import Pairs, PairStream

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from afqmc.dataset.splits import Dataset


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
    return split_digest(split.taken(sorted(range(len(rows)), key=rows.__getitem__), split.file), labels)


def _add_split(digest: Hash, split: Pairs | PairStream) -> None:
    if isinstance(split, Pairs):
        for column in (split.sentence1, split.sentence2, [str(label) for label in split.labels or ()]):
            add_texts(digest, column)
    else:
        digest.update(split.digest.encode())


def add_texts(digest: Hash, column: Sequence[str]) -> None:
    """Lengths and texts: no two sets of columns run together into the same bytes."""
    digest.update(np.array([len(text) for text in column], np.int64).tobytes())
    digest.update("".join(column).encode())
