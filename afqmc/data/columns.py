"""Columns of a split in flat arrays: no Python object per row, so that ten million pairs fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Self, overload

import numpy as np

_ROWS = 1 << 16  # rows that are processed at once, so that temporary arrays are small
_ODD = np.int64(-0x61C8864680B583EB)  # 2**64 divided by the golden ratio: spreads the bits of a hash
_UTF8 = ("utf-8", "surrogatepass")  # ids may have half a character, written as an escape in JSON


class Texts(Sequence[str]):
    """N texts as one array of UTF-8 bytes. A text takes its bytes and 8 more; ``hashes`` adds another 8.

    An item is a ``str`` and a slice is a list of them, both decoded on access.

    Args:
        data: The bytes of all texts, uint8.
        offsets: The first byte of each text and the end, int64 (N + 1,).
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return texts as a column; a column is returned unchanged."""
        if isinstance(texts, Texts):
            return texts
        characters = offsets_of(np.fromiter(map(len, texts), np.int64, len(texts)))
        data = np.frombuffer("".join(texts).encode(*_UTF8), np.uint8)
        begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))  # of each character
        return cls(data, begins[characters])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        if not isinstance(key, slice):
            row = range(len(self))[key]
            return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode(*_UTF8)
        start, stop, step = key.indices(len(self))
        if step != 1:
            return [self[row] for row in range(start, stop, step)]
        return [text.decode(*_UTF8) for text in self._bytes(start, stop)]

    def __iter__(self) -> Iterator[str]:
        for rows in _slices(len(self)):
            yield from self[rows]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)
        return _equals(self, other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return repr([*self])

    def encoded(self, rows: slice) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of the texts of a slice without a step."""
        return self._bytes(*rows.indices(len(self))[:2])

    def _bytes(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of some texts."""
        offsets = self.offsets[start : stop + 1]
        if len(offsets) == 0:
            return
        raw = self.data[offsets[0] : offsets[-1]].tobytes()
        for first, end in pairwise((offsets - offsets[0]).tolist()):
            yield raw[first:end]

    def take(self, rows: np.ndarray) -> Texts:
        """Return the texts of the given rows, in the given order."""
        rows = np.arange(len(self))[rows]  # without negative ones
        offsets = offsets_of(np.diff(self.offsets)[rows])
        data = np.empty(offsets[-1], np.uint8)
        for part in _slices(len(rows)):
            ends = offsets[part.start : part.stop + 1]
            shift = np.repeat(self.offsets[rows[part]] - ends[:-1], np.diff(ends))
            data[ends[0] : ends[-1]] = self.data[shift + np.arange(ends[0], ends[-1])]
        return Texts(data, offsets)

    @cached_property
    def hashes(self) -> np.ndarray:
        """A hash of each text, int64 (N,): Python's SipHash of its bytes, which differs between processes.

        Two different texts have the same hash with a probability of 2**-64. Of 20 million texts, any two have it with a
        probability of 1e-5.
        """
        result = np.empty(len(self), np.int64)
        for rows in _slices(len(self)):
            result[rows] = np.fromiter(map(hash, self._bytes(rows.start, rows.stop)), np.int64)
        return result

    def count_characters(self) -> np.ndarray:
        """Return the number of characters of each text, int64 (N,)."""
        result = np.empty(len(self), np.int64)
        for rows in _slices(len(self)):
            offsets = self.offsets[rows.start : rows.stop + 1]
            begins = (self.data[offsets[0] : offsets[-1]] & 0xC0) != 0x80  # other bytes continue a character
            result[rows] = np.diff(offsets_of(begins)[offsets - offsets[0]])
        return result


class Ints(Sequence[int]):
    """N whole numbers as an array, int64 (N,). An item is an ``int``, and a slice a list of them."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> list[int]: ...
    def __getitem__(self, key: int | slice) -> int | list[int]:
        return self.array[key].tolist()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[int]:
        for rows in _slices(len(self)):
            yield from self[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        return _equals(self, other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return repr([*self])

    def take(self, rows: np.ndarray) -> Self:
        """Return the numbers of the given rows, in the given order."""
        return type(self)(self.array[rows])


def to_column(values: Sequence[Any]) -> Sequence[Any]:
    """Return values as ``Texts`` or ``Ints``, or as a list if they are of several types or too large for int64."""
    if isinstance(values, Texts | Ints):
        return values
    types = set(map(type, values))
    if types == {str}:
        return Texts.of(values)
    if types == {int}:
        try:
            return Ints(np.array(values, np.int64))
        except OverflowError:
            pass
    return list(values)


def concatenate(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Return the values of several columns, one after another, as a column."""
    columns = [to_column(part) for part in parts if len(part)]
    texts = [part for part in columns if isinstance(part, Texts)]
    numbers = [part for part in columns if isinstance(part, Ints)]
    if columns and len(texts) == len(columns):
        lengths = np.concatenate([np.diff(part.offsets) for part in texts])
        return Texts(np.concatenate([part.data for part in texts]), offsets_of(lengths))
    if columns and len(numbers) == len(columns):
        return Ints(np.concatenate([part.array for part in numbers]))
    return [*chain.from_iterable(columns)]


def select_rows(column: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    """Return the given rows of a column, in the given order."""
    flat = to_column(column)
    return flat.take(rows) if isinstance(flat, Texts | Ints) else [flat[row] for row in rows.tolist()]


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each item in a flat array, and the end, int64 (N + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def combine_hashes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a hash of each row (first, second) of two columns of hashes, int64 (N,)."""
    combined: np.ndarray = first * _ODD + second  # modulo 2**64
    return combined


def _slices(length: int) -> Iterator[slice]:
    for start in range(0, length, _ROWS):
        yield slice(start, min(start + _ROWS, length))


def _equals(column: Sequence[Any], other: object) -> bool:
    if not isinstance(other, Sequence) or isinstance(other, str):
        return False
    return len(column) == len(other) and all(a == b for a, b in zip(column, other, strict=True))
