"""Labelled pairs column by column: held in memory, or a stream that is read anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Optional

import numpy as np

from afqmc.data.parsing import Pair
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.stream_changes import StreamTrace
from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


@dataclass(frozen=True)
class Pairs:
    """A split in memory, column by column; ``labels`` are class indices, None when the file has none."""

    file: str
    ids: list[int | str]
    sentence1: list[str]
    sentence2: list[str]
    labels: Optional[list[int]]
    lines: Optional[list[int]] = None  # of the file, where the pairs were read from one
    report: ReadReport = field(default_factory=ReadReport, compare=False)  # what was left out of the file

    def __len__(self) -> int:
        return len(self.ids)

    def line(self, row: int) -> int:
        """Where the row, counted from 0, stands in its file."""
        return row + 1 if self.lines is None else self.lines[row]

    def select(self, rows: Sequence[int], file: str) -> Pairs:
        """These rows, counted from 0, in the order given; ``file`` is what messages call them."""
        return Pairs(
            file,
            [self.ids[row] for row in rows],
            [self.sentence1[row] for row in rows],
            [self.sentence2[row] for row in rows],
            None if self.labels is None else [self.labels[row] for row in rows],
            [self.line(row) for row in rows],
        )


@dataclass(frozen=True)
class PairStream:
    """A labelled split too large for memory: each pass reads its file from the start.

    Attributes:
        file: What messages call it.
        read: Opens the file anew.
        index: The class index of each label name.
        label_counts: Pairs of each class.
        trace: Of all pairs, as they were first read; each pass is checked against it.
        report: What was left out.
    """

    file: str
    read: Callable[[], Iterator[Pair]]
    index: dict[str, int]
    label_counts: list[int]
    trace: StreamTrace
    report: ReadReport = field(default_factory=ReadReport)

    def __len__(self) -> int:
        return sum(self.label_counts)

    @property
    def digest(self) -> str:
        """sha256 of all pairs."""
        return self.trace.digest

    def chunks(self, size: int) -> Iterator[Pairs]:
        """The split in the file's order, ``size`` pairs at a time (the last may be shorter).

        Raises:
            InputError: where the file no longer holds the pairs that were counted, before any that differ are used,
                but for the last few of a chunk, which are checked with the next.
        """
        rows, seen = self.read(), StreamTrace()
        while chunk := self._unchanged(rows, size, seen):
            yield to_columns(self.file, chunk, self.index)

    def _unchanged(self, rows: Iterator[Pair], size: int, seen: StreamTrace) -> list[Pair]:
        """The next ``size`` pairs; ``seen`` is the trace of this pass."""
        try:
            chunk = list(islice(rows, size))
        except InputError as error:
            raise InputError(f"{self.file}: {_CHANGED}: {error}") from error
        for pair in chunk:
            seen.add(pair)
        is_end = len(chunk) < size
        if seen.count > len(self) or (is_end and seen.count < len(self)):
            pairs = f"at least {seen.count}" if seen.count > len(self) else str(seen.count)
            raise InputError(f"{self.file}: {_CHANGED}: it had {len(self)} pairs, and now has {pairs}")
        if not seen.begins(self.trace) or (seen.count == len(self) and seen.digest != self.digest):
            raise InputError(f"{self.file}: {_CHANGED}: other pairs among the first {seen.count}")
        return chunk


_CHANGED = "has changed since the run read it first; a streamed file must stay as it is until the run ends"


def to_columns(file: str, rows: Iterable[Pair], index: Mapping[str, int], report: Optional[ReadReport] = None) -> Pairs:
    """Rows as columns, label names, all of them known, as class indices; labels are None where no row has one."""
    pairs = list(rows)
    labels = [index[row.label] for row in pairs if row.label is not None]
    columns = ([row.sentence1 for row in pairs], [row.sentence2 for row in pairs])
    lines = [row.line for row in pairs]
    return Pairs(file, [row.id for row in pairs], *columns, labels or None, lines, report or ReadReport(file))


def label_to_index(names: tuple[str, ...]) -> dict[str, int]:
    """The class index of each label name."""
    return {name: number for number, name in enumerate(names)}


def update_digest(digest: Hash, column: Sequence[str]) -> None:
    """Lengths and texts: no two sets of columns run together into the same bytes."""
    digest.update(np.array([len(text) for text in column], np.int64).tobytes())
    digest.update("".join(column).encode())
