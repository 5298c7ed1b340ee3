"""A running digest of pairs: whether a file still holds what it held when it was read first."""

from __future__ import annotations

import hashlib

from afqmc.data.parsing import Pair

_INTERVAL = 256  # pairs between two marks: 8 bytes each


class StreamTrace:
    """The number of pairs so far, their digest, and marks: the digest after every so many pairs."""

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[bytes] = []
        self._compared = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """sha256 of the sentences and labels of all pairs so far."""
        return self._hash.hexdigest()

    def add(self, pair: Pair) -> None:
        """Go on by one pair."""
        self._hash.update(repr((pair.sentence1, pair.sentence2, pair.label)).encode())
        self.count += 1
        if self.count % _INTERVAL == 0:
            self.marks.append(self._hash.digest()[:8])

    def begins(self, whole: StreamTrace) -> bool:
        """Whether these are the first pairs of another trace, as far as the marks tell that."""
        start, self._compared = self._compared, len(self.marks)
        return self.marks[start:] == whole.marks[start : len(self.marks)]
