"""Convert the typed cells of Excel workbooks and Parquet files to text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

_LARGE = 10**21  # from here on, whole numbers are written with an exponent


@dataclass(frozen=True)
class Unusable:
    """A cell that cannot be part of a pair.

    Attributes:
        reason: What is wrong with it, as a sentence without its subject, the column name.
        value: The cell's value.
    """

    reason: str
    value: Any = None

    def as_py(self) -> Any:
        """Return the value; the method has the name of that of pyarrow's scalars."""
        return self.value


def plain(cell: Any) -> Any:
    """Return the Python value of a cell, which may be a pyarrow scalar.

    Raises:
        ValueError, OverflowError: if Python cannot represent the value.
    """
    return cell.as_py() if hasattr(cell, "as_py") else cell


def with_texts(row: Mapping[str, Any], fields: Iterable[str], id_field: str) -> dict[str, Any]:
    """Return the row with these fields as text, as in a CSV file. Ids that are whole numbers stay numbers.

    Raises:
        ValueError: naming the column of a cell that cannot be read.
    """
    converted = dict(row)
    for field in dict.fromkeys(field for field in fields if field in converted):
        cell = converted[field]
        if isinstance(cell, Unusable):
            raise ValueError(f"{field!r} {cell.reason}")
        try:
            value = plain(cell)
            converted[field] = int(value) if field == id_field and _is_whole(value) else cell_text(value)
        except UnicodeDecodeError as error:
            raise ValueError(f"{field!r} has bytes that are not UTF-8 ({error.reason})") from error
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{field!r} cannot be read: {error}") from error
    return converted


def cell_text(value: Any) -> Any:
    """Return a value as text: 1.0 becomes ``1``, a date at midnight has no time, and an empty cell is None.

    Values of other types, such as lists, are returned unchanged.

    Raises:
        ValueError: for infinity, and for bytes that are not UTF-8.
    """
    match value:
        case None | "":
            return None
        case bool():
            return str(value).lower()
        case float() | Decimal() if value != value:  # NaN, which pandas writes for a missing value
            return None
        case float() | Decimal() if abs(value) == float("inf"):
            raise ValueError(f"{value} is not a finite number")
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
    """Return a date or time in ISO format, omitting the time if it is midnight."""
    if isinstance(value, datetime) and value.time() == time() and value.tzinfo is None:
        return value.date().isoformat()
    return value.isoformat()


def _is_whole(value: Any) -> bool:
    if isinstance(value, float | Decimal):
        return math.isfinite(value) and -_LARGE < value < _LARGE and value == int(value)
    return isinstance(value, int) and not isinstance(value, bool)
