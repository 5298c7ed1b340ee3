"""Encode a table of predictions in the format of the output file's suffix."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afqmc.data.cells import iso, plain
from afqmc.data.compression import EXTRA
from afqmc.inference.prediction_columns import PredictionColumns
from afqmc.utils.errors import InputError, first_line

_EXACT = 2**53  # a float64, which spreadsheets use for all numbers, holds integers below this exactly
_EXCEL_CELL_LENGTH, _EXCEL_ROWS = 32_767, 1_048_575  # Excel's limits; one more row is the header


def check_format(out: Path, clue: bool) -> None:
    """Check that the format of the file's suffix can be written.

    Raises:
        InputError: with the allowed suffixes, or the package that is not installed.
    """
    suffix = out.suffix.lower()
    allowed = (".json", ".jsonl", ".zip") if clue else (".jsonl", ".json", *TABLES)
    if suffix and suffix not in allowed:
        condition = " with --clue" if clue else ""
        raise InputError(
            f"-o {out}: {suffix} is not an output format; allowed{condition}: {', '.join(allowed)}, or - (JSON lines)"
        )
    package = _PACKAGES.get(suffix)
    if package is not None and find_spec(package) is None:
        raise InputError(f"-o {out}: {suffix} needs {package}; {EXTRA}")


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    """Return one JSON object per line, in UTF-8."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate in an id becomes \ud83d, as in JSON


def _csv(table: PredictionColumns) -> bytes:
    """Return CSV with a byte order mark. Excel needs it to recognise UTF-8."""
    text = io.StringIO()
    csv.writer(text).writerows([table.columns, *([_text(value) for value in row] for row in table.rows)])
    return text.getvalue().encode("utf-8-sig")


def _tsv(table: PredictionColumns) -> bytes:
    """Return TSV without quotes, as this project reads it. Cells cannot contain tabs or line breaks."""
    lines = []
    for index, row in enumerate([table.columns, *table.rows]):
        cells = [_text(value) for value in row]
        for column, cell in zip(table.columns, cells, strict=True):
            if any(character in cell for character in "\t\n\r"):
                raise InputError(f"row {index}: {column!r} contains a tab or a line break (invalid in TSV); write .csv")
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, date | time):
        return iso(value)
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def _parquet(table: PredictionColumns) -> bytes:
    """Return Parquet. Columns from Parquet keep their type; others get one that fits all values, or become text."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {}
    for index, name in enumerate(table.columns):
        try:
            columns[name] = _arrow_column([row[index] for row in table.rows])
        except Exception as error:  # pyarrow raises various errors for types that it cannot build
            raise InputError(f"{name!r} cannot be written as Parquet ({first_line(error)})") from error
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


def _arrow_column(cells: list[Any]) -> Any:
    import pyarrow

    types = {cell.type if isinstance(cell, pyarrow.Scalar) else None for cell in cells if cell is not None}
    if len(types) == 1 and None not in types:
        nullable = [cell if cell is not None and cell.is_valid else None for cell in cells]
        return pyarrow.array(nullable, types.pop())
    values = [plain(cell) for cell in cells]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} and not any(_loses_digits(value) for value in values if isinstance(value, int)):
        return pyarrow.array(values, pyarrow.float64())
    is_long = kinds == {int} and any(abs(value or 0) >> 63 for value in values)
    if len(kinds) == 1 and not is_long:
        return pyarrow.array(values)
    return pyarrow.array([None if value is None else _text(value) for value in values], pyarrow.string())


def _xlsx(table: PredictionColumns) -> bytes:
    """Return an Excel workbook. Text that looks like a formula stays text."""
    from openpyxl import Workbook

    if len(table.rows) > _EXCEL_ROWS:
        raise InputError(f"{len(table.rows)} rows: Excel allows {_EXCEL_ROWS}; write .csv")
    book = Workbook(write_only=True)
    sheet = book.create_sheet("predictions")
    try:
        for index, row in enumerate([table.columns, *table.rows]):
            sheet.append(list(_xlsx_row(sheet, table.columns, index, row)))
    except InputError:
        sheet.close()  # an open write-only sheet raises an error when it is garbage-collected
        raise
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def _xlsx_row(sheet: Any, columns: list[str], index: int, row: list[Any]) -> Iterator[Any]:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.utils.exceptions import IllegalCharacterError

    for column, value in zip(columns, row, strict=True):
        text = None if _fits_excel(value) else _text(value)
        if text is not None and len(text) > _EXCEL_CELL_LENGTH:
            raise InputError(f"row {index}: {column!r} is longer than an Excel cell can be; write .csv")
        try:
            cell = WriteOnlyCell(sheet, value if text is None else text)
        except IllegalCharacterError as error:
            raise InputError(f"row {index}: {column!r} contains a control character; write .csv") from error
        if text is not None:
            cell.data_type = "s"
        yield cell


def _fits_excel(value: Any) -> bool:
    """Return whether Excel can store the value unchanged. Other values are written as text."""
    match value:
        case None | bool() | timedelta():
            return True
        case int() | float() | Decimal():
            return not _loses_digits(value)
        case datetime() | time() if value.tzinfo is not None:
            return False
        case date():
            return value.year >= 1900
    return isinstance(value, time)


def _loses_digits(value: int | float | Decimal) -> bool:
    if isinstance(value, int):
        return abs(value) >= _EXACT
    return not math.isfinite(value) or (isinstance(value, Decimal) and Decimal(repr(float(value))) != value)


TABLES: dict[str, Callable[[PredictionColumns], bytes]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".xlsx": _xlsx,
}
_PACKAGES = {".parquet": "pyarrow", ".xlsx": "openpyxl"}
