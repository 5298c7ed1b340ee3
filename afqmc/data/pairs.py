"""Splits of pairs: columns in memory, or a stream that reads its file in each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from afqmc.data.columns import Ints, Texts, concatenate, select_rows, to_column
from afqmc.data.parsing import Pair
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.stream_changes import StreamTrace
from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


_CHUNK = 1 << 14  # pairs that are Python objects at the same time
UNLABELLED = -100  # the class index of a pair without a label in a labelled split; PyTorch's cross-entropy ignores it


@dataclass(frozen=True)
class Pairs:
    """A split in memory, as columns of equal length. Those of a file are flat arrays, see ``afqmc.data.columns``.

    Attributes:
        file: What messages call the split.
        ids: The pairs' ids.
        sentence1: First sentences.
        sentence2: Second sentences.
        labels: Class indices; None for an unlabelled split.
        lines: Line of each pair in its file; None if the pairs do not come from a file.
        report: Counts of the skipped rows.
        teacher_logits: Logits of a teacher (N, C), float32, from which a student learns; None without a teacher.
    """

    file: str
    ids: Sequence[int | str]
    sentence1: Sequence[str]
    sentence2: Sequence[str]
    labels: Sequence[int] | None
    lines: Sequence[int] | None = None
    report: ReadReport = field(default_factory=ReadReport, compare=False)
    teacher_logits: np.ndarray | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def line(self, row: int) -> int:
        """Return the line in the file of a row, counted from 0."""
        return row + 1 if self.lines is None else self.lines[row]

    def swapped(self) -> Pairs:
        """Return the pairs (b, a) instead of (a, b)."""
        return replace(self, sentence1=self.sentence2, sentence2=self.sentence1)

    def followed_by(self, others: Pairs) -> Pairs:
        """Return these pairs and then the others. The result is not a file, so it has no lines."""
        teacher = [column for column in (self.teacher_logits, others.teacher_logits) if column is not None]
        return replace(
            self,
            ids=concatenate([self.ids, others.ids]),
            sentence1=concatenate([self.sentence1, others.sentence1]),
            sentence2=concatenate([self.sentence2, others.sentence2]),
            labels=None if self.labels is None or others.labels is None else concatenate([self.labels, others.labels]),
            lines=None,
            teacher_logits=np.concatenate(teacher) if len(teacher) == 2 else None,
        )

    def select(self, rows: Sequence[int] | np.ndarray, file: str) -> Pairs:
        """Return the given rows, counted from 0, in the given order. Messages call the result ``file``."""
        chosen = np.asarray(rows, np.int64)
        return Pairs(
            file,
            select_rows(self.ids, chosen),
            select_rows(self.sentence1, chosen),
            select_rows(self.sentence2, chosen),
            None if self.labels is None else select_rows(self.labels, chosen),
            Ints(chosen + 1) if self.lines is None else select_rows(self.lines, chosen),
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits[chosen],
        )


@dataclass(frozen=True)
class PairStream:
    """A labelled split too large for memory. Each pass reads the file from the start.

    Attributes:
        file: What messages call the split.
        read: Opens the file again and yields its pairs.
        index: The class index of each label name.
        label_counts: Pairs per class.
        trace: Digests of the pairs in the first pass, against which later passes are checked.
        report: Counts of the skipped rows.
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
        """The sha256 of all pairs."""
        return self.trace.digest

    def chunks(self, size: int) -> Iterator[Pairs]:
        """Yield the split in the file's order, ``size`` pairs at a time; the last chunk may be shorter.

        Raises:
            InputError: if the file has changed since the first pass. Changed pairs are found before they are yielded,
                except for the last few of a chunk, which are checked together with the next chunk.
        """
        pairs, trace = self.read(), StreamTrace()
        while chunk := self._next_chunk(pairs, size, trace):
            yield to_columns(self.file, chunk, self.index)

    def _next_chunk(self, pairs: Iterator[Pair], size: int, trace: StreamTrace) -> list[Pair]:
        """Return the next ``size`` pairs after checking them; ``trace`` is that of this pass."""
        try:
            chunk = list(islice(pairs, size))
        except InputError as error:
            raise InputError(f"{self.file}: {_CHANGED}: {error}") from error
        for pair in chunk:
            trace.add(pair)
        is_end = len(chunk) < size
        if trace.count > len(self) or (is_end and trace.count < len(self)):
            count = f"at least {trace.count}" if trace.count > len(self) else str(trace.count)
            raise InputError(f"{self.file}: {_CHANGED}: it had {len(self)} pairs, and now has {count}")
        if not trace.is_prefix_of(self.trace) or (trace.count == len(self) and trace.digest != self.digest):
            raise InputError(f"{self.file}: {_CHANGED}: some of the first {trace.count} pairs differ")
        return chunk


_CHANGED = "has changed since the run first read it; a streamed file must not change until the run ends"


def to_columns(file: str, rows: Iterable[Pair], index: Mapping[str, int], report: ReadReport | None = None) -> Pairs:
    """Return pairs as columns, with labels as class indices (None if no pair has a label)."""
    pairs, parts = iter(rows), []
    while chunk := list(islice(pairs, _CHUNK)):
        labels = [index[pair.label] for pair in chunk if pair.label is not None]
        sentences = ([pair.sentence1 for pair in chunk], [pair.sentence2 for pair in chunk])
        columns = ([pair.id for pair in chunk], *sentences, labels, [pair.line for pair in chunk])
        parts.append([to_column(column) for column in columns])
    ids, sentence1, sentence2, all_labels, lines = (
        map(concatenate, zip(*parts, strict=True)) if parts else ([], [], [], [], [])
    )
    return Pairs(file, ids, sentence1, sentence2, all_labels or None, lines, report or ReadReport(file))


def label_to_index(names: tuple[str, ...]) -> dict[str, int]:
    """Return the class index of each label name."""
    return {name: index for index, name in enumerate(names)}


def sentences_digest(pairs: Pairs) -> str:
    """Return a digest of the sentences of all pairs, whatever their order, that within each pair, and their labels.

    It is the sum of the sha256 of each pair, modulo 2**256, so that it takes no memory.
    """
    columns = Texts.of(pairs.sentence1), Texts.of(pairs.sentence2)
    characters = [texts.count_characters() for texts in columns]
    total = 0
    for start in range(0, len(pairs), _CHUNK):
        rows = slice(start, start + _CHUNK)
        texts = zip(*(column.encoded(rows) for column in columns), *(count[rows] for count in characters), strict=True)
        digests = [
            # the order of UTF-8 bytes is that of the characters
            hashlib.sha256(b"%d %b%b" % ((n, a, b) if a <= b else (m, b, a))).digest()
            for a, b, n, m in texts
        ]
        words = np.frombuffer(b"".join(digests), ">u4").reshape(-1, 8).sum(axis=0, dtype=np.int64)
        total += sum(word << 32 * place for place, word in enumerate(reversed(words.tolist())))
    return f"{total % (1 << 256):064x}"


def update_digest(digest: Hash, column: Sequence[str]) -> None:
    """Hash the lengths and then the texts, so that different columns never concatenate to the same bytes."""
    texts = Texts.of(column)
    digest.update(texts.count_characters().tobytes())
    digest.update(texts.data.data)


def label_texts(labels: Sequence[int] | None) -> Texts:
    """Return class indices as texts, for a digest; none for an unlabelled split."""
    values, rows = np.unique(np.asarray(labels or (), np.int64), return_inverse=True)
    return Texts.of([str(value) for value in values.tolist()]).take(rows)
