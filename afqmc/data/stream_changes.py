"""Detect changes of a streamed file by running digests of its pairs."""

from __future__ import annotations

import hashlib

from afqmc.data.parsing import Pair

_INTERVAL = 256  # pairs per mark; a mark takes 8 bytes


class StreamTrace:
    """Digests of one pass: of all pairs so far, and a mark (a short digest) every ``_INTERVAL`` pairs."""

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[bytes] = []
        self._compared = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The sha256 of the sentences and labels of all pairs so far."""
        return self._hash.hexdigest()

    def add(self, pair: Pair) -> None:
        """Add the next pair."""
        self._hash.update(repr((pair.sentence1, pair.sentence2, pair.label)).encode())
        self.count += 1
        if self.count % _INTERVAL == 0:
            self.marks.append(self._hash.digest()[:8])

    def is_prefix_of(self, full: StreamTrace) -> bool:
        """Return whether the marks since the last call equal those of the full trace."""
        start, self._compared = self._compared, len(self.marks)
        return self.marks[start:] == full.marks[start : len(self.marks)]
