"""Predictions as columns: the user's own, then the file where there are several, the probabilities and the label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any

import numpy as np

from afqmc.data.cells import iso, plain
from afqmc.utils.errors import InputError, first_line

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a text that begins so


@dataclass(frozen=True)
class PredictionColumns:
    """Rows of values that are not nested: None, bool, int, float, str, or of another type that the input had.

    Attributes:
        columns: Names, in order.
        rows: A value per column. For an output with types, those of a Parquet file are scalars of pyarrow.
    """

    columns: list[str]
    rows: list[list[Any]]


def added_columns(labels: Sequence[str]) -> list[str]:
    """The columns of a prediction; with two classes the probability is that of the second."""
    of_classes = ["probability"] if len(labels) == 2 else [f"probability_{label}" for label in labels]
    return [*of_classes, "prediction"]


def added_values(probabilities: np.ndarray, labels: Sequence[str]) -> list[Any]:
    """The values of these columns for one pair."""
    of_classes = [float(value) for value in (probabilities[1:] if len(labels) == 2 else probabilities)]
    return [*of_classes, labels[int(probabilities.argmax())]]


def build(
    rows: Sequence[dict[str, Any]],
    files: Sequence[str],
    probabilities: np.ndarray,
    labels: Sequence[str],
    with_types: bool = False,
) -> PredictionColumns:
    """The user's rows with their predictions.

    Args:
        rows: The user's own columns.
        files: The file of each row; empty where all rows are of one file.
        probabilities: Those of each row.
        labels: Names in class order.
        with_types: Whether the output can hold any scalar of pyarrow.

    Raises:
        InputError: naming the row and column of a cell that cannot be written.
    """
    own = list(dict.fromkeys(column for row in rows for column in row))
    added = [*(["file"] if files else []), *added_columns(labels)]
    value_of: Callable[[Any], Any] = _flat if with_types else lambda cell: _flat(plain(cell))
    found = []
    for number, (row, said) in enumerate(zip(rows, probabilities, strict=True)):
        values: list[Any] = []
        for column in own:
            try:
                values.append(value_of(row.get(column)))
            except Exception as error:  # libraries raise anything for a value that Python does not have
                message = f"row {number + 1}: {column!r} cannot be written as text ({first_line(error)})"
                raise InputError(f"{message}; write .parquet, or .jsonl, which has no columns of the input") from error
        found.append(values + ([files[number]] if files else []) + added_values(said, labels))
    return PredictionColumns([_clean(column) for column in own] + added, found)


def reject_existing_columns(rows: Sequence[dict[str, Any]], several: bool, labels: Sequence[str], out: str) -> None:
    """Refuse a file whose own columns have the names of those to be added.

    Raises:
        InputError: naming the column.
    """
    own = {column for row in rows for column in row}
    for name in [*(["file"] if several else []), *added_columns(labels)]:
        if name in own:
            raise InputError(
                f"-o {out}: the input has a column {name!r} already, and a prediction adds one of that name; rename "
                "it, or write .jsonl, which holds the ids and predictions alone"
            )


def warning_of(rows: Sequence[dict[str, Any]], suffix: str) -> str:
    """What to say of cells that a spreadsheet computes instead of showing; they are written unchanged all the same."""
    if suffix not in (".csv", ".tsv"):
        return ""
    texts = (text for row in rows for cell in row.values() if isinstance(text := _flat(plain(cell)), str))
    count = sum(text.startswith(_FORMULA) and not _is_number(text) for text in texts)
    if not count:
        return ""
    return f"{count} cells begin with =, +, -, @ or a tab, and a spreadsheet may compute them; .xlsx keeps them as text"


def _flat(value: Any) -> Any:
    """What a cell can hold: nested values as JSON, bytes as the text that they encode."""
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, default=_in_json)
    elif isinstance(value, bytes):
        value = value.decode("utf-8")
    return _clean(value) if isinstance(value, str) else value


def _in_json(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return iso(value) if isinstance(value, date | time) else str(value)


def _clean(text: str) -> str:
    r"""Half a character, which no file takes, as ``\ud83d``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
