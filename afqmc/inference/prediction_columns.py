"""Predictions as columns: the user's own, then the file where there are several, the probabilities and the label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afqmc.utils.errors import InputError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a text that begins so


@dataclass(frozen=True)
class Table:
    """Rows of plain values: None, bool, int, float or str.

    Attributes:
        columns: Names, in order.
        rows: A value per column.
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
    rows: Sequence[dict[str, Any]], files: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]
) -> Table:
    """The user's rows with their predictions; ``files`` is empty where all rows are of one file."""
    own = list(dict.fromkeys(column for row in rows for column in row))
    added = [*(["file"] if files else []), *added_columns(labels)]
    found = []
    for number, (row, said) in enumerate(zip(rows, probabilities, strict=True)):
        from_file = [files[number]] if files else []
        found.append([_plain(row.get(column)) for column in own] + from_file + added_values(said, labels))
    return Table([_clean(column) for column in own] + added, found)


def refuse_taken(rows: Sequence[dict[str, Any]], several: bool, labels: Sequence[str], out: str) -> None:
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
    texts = (value for row in rows for value in row.values() if isinstance(value, str))
    count = sum(text.startswith(_FORMULA) and not _is_number(text) for text in texts)
    if suffix not in (".csv", ".tsv") or not count:
        return ""
    return f"{count} cells begin with =, +, -, @ or a tab, and a spreadsheet may compute them; .xlsx keeps them as text"


def _plain(value: Any) -> Any:
    """What a cell of any format can hold: nested values as JSON."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return _clean(value) if isinstance(value, str) else value


def _clean(text: str) -> str:
    r"""Half a character, which no file takes, as ``\ud83d``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
