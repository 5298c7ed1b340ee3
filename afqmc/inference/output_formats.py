"""A table of predictions as the bytes of a file; the format follows the file's name."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afqmc.data.compression import EXTRA
from afqmc.inference.prediction_columns import Table
from afqmc.utils.errors import InputError

_EXACT = 2**53  # whole numbers from here on lose digits in a spreadsheet
_LONGEST_CELL, _MOST_ROWS = 32_767, 1_048_575  # of Excel


def check_format(out: Path, clue: bool) -> None:
    """Check that a file of this name can be written.

    Raises:
        InputError: naming the legal endings, or the package that is missing.
    """
    suffix = out.suffix.lower()
    legal = (".json", ".jsonl", ".zip") if clue else (".jsonl", ".json", *TABLES)
    if suffix and suffix not in legal:
        told = " with --clue" if clue else ""
        raise InputError(f"-o {out}: no format ends in {suffix}; legal{told}: {', '.join(legal)}, or - (JSON lines)")
    package = _PACKAGES.get(suffix)
    if package is not None and find_spec(package) is None:
        raise InputError(f"-o {out}: {suffix} needs {package}; {EXTRA}")


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    """One object per line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")  # half a character in an id: JSON's own spelling of it


def _csv(table: Table) -> bytes:
    """With a byte order mark: without it Excel shows Chinese in the wrong letters."""
    text = io.StringIO()
    csv.writer(text).writerows([table.columns, *([_text(value) for value in row] for row in table.rows)])
    return text.getvalue().encode("utf-8-sig")


def _tsv(table: Table) -> bytes:
    """Without quotes, as TSV is read here: no cell can hold a tab or a line break."""
    lines = []
    for number, row in enumerate([table.columns, *table.rows]):
        cells = [_text(value) for value in row]
        for column, cell in zip(table.columns, cells, strict=True):
            if any(mark in cell for mark in "\t\n\r"):
                raise InputError(f"row {number}: {column!r} holds a tab or a line break, which TSV cannot; write .csv")
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def _parquet(table: Table) -> bytes:
    """A column keeps its type where all of its values have the same; else it holds text."""
    import pyarrow
    import pyarrow.parquet

    types: dict[type, Any] = {
        bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string(),
    }  # fmt: skip
    columns: dict[str, Any] = {}
    for place, name in enumerate(table.columns):
        values = [row[place] for row in table.rows]
        kinds = {type(value) for value in values if value is not None}
        is_plain = len(kinds) == 1 and not (kinds == {int} and any(abs(value or 0) >> 63 for value in values))
        kind = kinds.pop() if is_plain else str
        texts = [value if value is None or isinstance(value, kind) else _text(value) for value in values]
        columns[name] = pyarrow.array(texts, types[kind])
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


def _xlsx(table: Table) -> bytes:
    """Text stays text: no cell is a formula."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.utils.exceptions import IllegalCharacterError

    if len(table.rows) > _MOST_ROWS:
        raise InputError(f"{len(table.rows)} rows: Excel has room for {_MOST_ROWS}; write .csv")
    book = Workbook(write_only=True)
    sheet = book.create_sheet("predictions")
    for number, row in enumerate([table.columns, *table.rows]):
        cells = []
        for column, value in zip(table.columns, row, strict=True):
            text = _text(value) if isinstance(value, str) or _loses_digits(value) else None
            if text is not None and len(text) > _LONGEST_CELL:
                raise InputError(f"row {number}: {column!r} is longer than a cell of Excel can be; write .csv")
            try:
                cell = WriteOnlyCell(sheet, value if text is None else text)
            except IllegalCharacterError as error:
                raise InputError(f"row {number}: {column!r} holds a control character; write .csv") from error
            if text is not None:
                cell.data_type = "s"
            cells.append(cell)
        sheet.append(cells)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def _loses_digits(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and abs(value) >= _EXACT


TABLES: dict[str, Callable[[Table], bytes]] = {".csv": _csv, ".tsv": _tsv, ".parquet": _parquet, ".xlsx": _xlsx}
_PACKAGES = {".parquet": "pyarrow", ".xlsx": "openpyxl"}
