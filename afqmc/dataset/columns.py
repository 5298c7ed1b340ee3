"""Labelled pairs column by column: held in memory, or a stream that is read anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Optional

from afqmc.dataset.pairs import Complain, Pair
from afqmc.errors import InputError, in_brief


@dataclass(frozen=True)
class Pairs:
    """A split in memory, column by column; ``labels`` are class indices, None when the file has none."""

    file: str
    ids: list[int | str]
    sentence1: list[str]
    sentence2: list[str]
    labels: Optional[list[int]]
    lines: Optional[list[int]] = None  # of the file, where the pairs were read from one

    def __len__(self) -> int:
        return len(self.ids)

    def line(self, row: int) -> int:
        """Where the row, counted from 0, stands in its file."""
        return row + 1 if self.lines is None else self.lines[row]

    def taken(self, rows: Sequence[int], file: str) -> Pairs:
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
    """A labelled split too large for memory: each pass reads its file from the start. Counted once."""

    file: str
    read: Callable[[], Iterator[Pair]]
    index: dict[str, int]
    label_counts: list[int]
    digest: str  # of all pairs

    def __len__(self) -> int:
        return sum(self.label_counts)

    def chunks(self, size: int) -> Iterator[Pairs]:
        """The split in the file's order, ``size`` pairs at a time (the last may be shorter)."""
        rows = self.read()
        while chunk := list(islice(rows, size)):
            yield to_columns(self.file, chunk, self.index)


def to_columns(file: str, rows: list[Pair], index: dict[str, int]) -> Pairs:
    """Rows as columns, label names as class indices.

    Raises:
        InputError: ``file:line`` of the first label outside the set.
    """
    labels = [index[row.label] for row in rows if row.label is not None and is_known(file, row, index, None)]
    columns = ([row.sentence1 for row in rows], [row.sentence2 for row in rows])
    lines = [row.line for row in rows]
    return Pairs(file, [row.id for row in rows], *columns, labels if labels else None, lines)


def is_known(file: str, row: Pair, index: dict[str, int], complain: Optional[Complain]) -> bool:
    """Whether the row's label, if it has one, is in the set.

    Raises:
        InputError: when it is not, and nobody takes complaints.
    """
    if row.label is None or row.label in index:
        return True
    told = in_brief(f"label {row.label!r} is not one of: {', '.join(index)}")
    told = f"{file}:{row.line}: {told} (dataset.labels sets them)"
    if complain is None:
        raise InputError(told)
    complain(told)
    return False


def index_of(names: tuple[str, ...]) -> dict[str, int]:
    """The class index of each label name."""
    return {name: number for number, name in enumerate(names)}
