"""Cells of Excel workbooks and Parquet files: their own values, and the text that a pair is read from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

_LARGE = 10**21  # whole numbers from here on are written with an exponent


@dataclass(frozen=True)
class Unusable:
    """A cell that no pair can be read from.

    Attributes:
        reason: What is wrong with it, as the end of a sentence that begins with the name of the column.
        value: What it holds.
    """

    reason: str
    value: Any = None

    def as_py(self) -> Any:
        """Return the value, as a scalar of pyarrow does."""
        return self.value


def plain(cell: Any) -> Any:
    """Return the Python value of a cell, which may be a scalar of pyarrow.

    Raises:
        ValueError, OverflowError: where Python has no such value.
    """
    return cell.as_py() if hasattr(cell, "as_py") else cell


def with_texts(row: Mapping[str, Any], fields: Iterable[str], id_field: str) -> dict[str, Any]:
    """Return the row with these fields as text, as a CSV file would have them. Ids that are whole numbers stay numbers.

    Raises:
        ValueError: naming the column of a cell that cannot be read.
    """
    found = dict(row)
    for field in dict.fromkeys(field for field in fields if field in found):
        cell = found[field]
        if isinstance(cell, Unusable):
            raise ValueError(f"{field!r} {cell.reason}")
        try:
            value = plain(cell)
            found[field] = int(value) if field == id_field and _is_whole(value) else as_text(value)
        except UnicodeDecodeError as error:
            raise ValueError(f"{field!r} holds bytes that are not UTF-8 ({error.reason})") from error
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{field!r} cannot be read: {error}") from error
    return found


def as_text(value: Any) -> Any:
    """Return a value as text: 1.0 is ``1``, a date has no midnight, an empty cell is None. Lists stay as they are.

    Raises:
        ValueError: for infinity, and bytes that are not UTF-8.
    """
    match value:
        case None | "":
            return None
        case bool():
            return str(value).lower()
        case float() | Decimal() if value != value:  # NaN: how pandas writes a missing value
            return None
        case float() | Decimal() if abs(value) == float("inf"):
            raise ValueError(f"{value} is no finite number")
        case float() | Decimal() if _is_whole(value):
            return str(int(value))
        case date() | time():
            return iso(value)
        case bytes():
            return value.decode("utf-8") or None
        case int() | float() | Decimal():
            return str(value)
    return value


def iso(value: date | time) -> str:
    """Return a date or time in ISO format, without midnight."""
    if isinstance(value, datetime) and value.time() == time() and value.tzinfo is None:
        return value.date().isoformat()
    return value.isoformat()


def _is_whole(value: Any) -> bool:
    if isinstance(value, float | Decimal):
        return math.isfinite(value) and -_LARGE < value < _LARGE and value == int(value)
    return isinstance(value, int) and not isinstance(value, bool)
