"""Build a table of the user's columns, followed by the columns of the predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from afqmc.data.cells import iso, plain
from afqmc.evaluation.decision import Decided
from afqmc.utils.errors import InputError, first_line

_MARKS = ("abstained", "truncated")  # columns that only some outputs have
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet may evaluate text that begins with one of these


@dataclass(frozen=True)
class PredictionColumns:
    """A table whose values are not nested: None, bool, int, float, str, or another type of the input.

    Attributes:
        columns: Names, in order.
        rows: Lists with one value per column. Values of a Parquet file are pyarrow scalars if types are preserved.
    """

    columns: list[str]
    rows: list[list[Any]]


def added_columns(labels: Sequence[str], decided: Decided) -> list[str]:
    """Return the names of the prediction's columns. With two classes, ``probability`` is that of the second."""
    names = ["probability"] if len(labels) == 2 else [f"probability_{label}" for label in labels]
    return [*names, "prediction", *(name for name in _MARKS if getattr(decided, name) is not None)]


def added_values(decided: Decided, index: int, labels: Sequence[str]) -> list[Any]:
    """Return the values of ``added_columns`` for the pair at an index."""
    probabilities = decided.probabilities[index]
    values = [float(value) for value in (probabilities[1:] if len(labels) == 2 else probabilities)]
    return [*values, *outcome(decided, index, labels).values()]


def outcome(decided: Decided, index: int, labels: Sequence[str]) -> dict[str, Any]:
    """Return the predicted label (None if the pair is abstained) and the marks that this output has."""
    marks = {name: bool(values[index]) for name in _MARKS if (values := getattr(decided, name)) is not None}
    label = labels[int(decided.predicted[index])]
    return {"prediction": None if marks.get("abstained") else label, **marks}


def build_columns(
    rows: Sequence[dict[str, Any]],
    files: Sequence[str],
    decided: Decided,
    labels: Sequence[str],
    with_types: bool = False,
) -> PredictionColumns:
    """Append the predictions to the user's rows.

    Args:
        rows: The user's columns, per pair.
        files: The file of each pair, which becomes a column; empty if all pairs are from one file.
        decided: Probabilities and predictions of N pairs.
        labels: Label names, in class order.
        with_types: Whether the output format can store pyarrow scalars.

    Raises:
        InputError: with the row and column of a cell that cannot be written.
    """
    user_columns = list(dict.fromkeys(column for row in rows for column in row))
    added = [*(["file"] if files else []), *added_columns(labels, decided)]
    flatten: Callable[[Any], Any] = _flatten if with_types else lambda cell: _flatten(plain(cell))
    table = []
    for index, row in enumerate(rows):
        values: list[Any] = []
        for column in user_columns:
            try:
                values.append(flatten(row.get(column)))
            except Exception as error:  # pyarrow raises various errors for values without a Python equivalent
                message = f"row {index + 1}: {column!r} cannot be written as text ({first_line(error)})"
                raise InputError(f"{message}; write .parquet, or .jsonl, which has no columns of the input") from error
        file = [files[index]] if files else []
        table.append(values + file + added_values(decided, index, labels))
    return PredictionColumns([_escape_surrogates(column) for column in user_columns] + added, table)


def reject_existing_columns(
    rows: Sequence[dict[str, Any]], several: bool, labels: Sequence[str], out: str, decided: Decided
) -> None:
    """Check that no column of the user has the name of an added one.

    Raises:
        InputError: with the name of the column.
    """
    user_columns = {column for row in rows for column in row}
    for name in [*(["file"] if several else []), *added_columns(labels, decided)]:
        if name in user_columns:
            raise InputError(
                f"-o {out}: the input has a column {name!r} already, and a prediction adds one of that name; rename "
                "it, or write .jsonl, which has only ids and predictions"
            )


def count_formulas(rows: Sequence[dict[str, Any]], suffix: str) -> int:
    """Return the number of cells of a .csv or .tsv file that a spreadsheet may evaluate as formulas."""
    if suffix not in (".csv", ".tsv"):
        return 0
    texts = (text for row in rows for cell in row.values() if isinstance(text := _flatten(plain(cell)), str))
    return sum(text.startswith(_FORMULA) and not _is_number(text) for text in texts)


def formula_warning(count: int) -> str:
    """Return the warning on cells that ``count_formulas`` counts. They are written unchanged."""
    return f"{count} cells begin with =, +, -, @ or a tab, and a spreadsheet may compute them; .xlsx keeps them as text"


def _flatten(value: Any) -> Any:
    """Convert nested values to JSON text, and bytes to the UTF-8 text that they encode."""
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, default=_json_default)
    elif isinstance(value, bytes):
        value = value.decode("utf-8")
    return _escape_surrogates(value) if isinstance(value, str) else value


def _json_default(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return iso(value) if isinstance(value, date | time) else str(value)


def _escape_surrogates(text: str) -> str:
    r"""Write lone surrogates as ``\ud83d``, since UTF-8 cannot encode them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
