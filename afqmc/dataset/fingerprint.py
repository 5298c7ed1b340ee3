"""What tells one data set from another: a checksum of its pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from afqmc.dataset.splits import Dataset, Pairs


def fingerprint(data: Dataset) -> str:
    """sha256 over the classes and, split by split, over sentences and labels in their order."""
    found = hashlib.sha256(repr(data.labels).encode())
    for name, split in data.splits().items():
        found.update(f"{name} {len(split)}".encode())
        if isinstance(split, Pairs):
            for column in (split.sentence1, split.sentence2, split.labels or ()):
                found.update(_digest(map(str, column)))
        else:
            found.update(split.digest.encode())
    return found.hexdigest()


def _digest(texts: Iterable[str]) -> bytes:
    """Lengths and texts: no two columns run together into the same bytes."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in texts).encode("utf-8", "surrogatepass")).digest()
