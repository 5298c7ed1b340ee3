"""Tables that are not text: Excel workbooks and Parquet, as rows of cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from afqmc.data.compression import EXTRA, seekable
from afqmc.data.config import DatasetConfig
from afqmc.data.encoding import Refuse
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError, blamed_on

Cells = list[Any]

_ERRORS = {"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"}  # results of formulas that failed
_ROWS = 8192  # of Parquet held at once


def xlsx_cells(file: DataFile, config: DatasetConfig, refuse: Refuse) -> Iterator[tuple[int, Cells]]:
    """The rows of a workbook's first sheet that hold anything, with their numbers; formulas as their saved results.

    Raises:
        InputError: where openpyxl is not installed, or the file is no workbook.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(f"{file.name}: reading .xlsx needs openpyxl; {EXTRA}") from error
    with seekable(file) as stream, blamed_on(f"{file.name}: not a readable .xlsx workbook"):
        with warnings.catch_warnings(action="ignore"):  # of styles that are missing, and other matters of looks
            book = load_workbook(stream, read_only=True, data_only=True)
        if not book.worksheets:
            raise InputError(f"{file.name}: the workbook has no sheet with cells")
        sheet = book.worksheets[0]
        if len(book.sheetnames) > 1:
            file.note(f"read from the sheet {sheet.title!r}, the first of {len(book.sheetnames)}")
        sheet.reset_dimensions()  # some programs write wrong ones
        names: Cells = list(config.columns or [])
        for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
            cells = _texts(values, names, config.id_field)
            while cells and cells[-1] is None:
                cells.pop()
            if failed := _ERRORS.intersection(cells):
                refuse(line, f"a cell is {failed.pop()}, the result of a formula that failed")
            elif cells:
                names = names or cells
                yield line, cells + [None] * (len(names) - len(cells))


def parquet_cells(file: DataFile, config: DatasetConfig, all_columns: bool) -> Iterator[tuple[int, Cells]]:
    """The names of a Parquet file's columns, and then its rows, counted from 1.

    Args:
        file: What to read.
        config: Names the columns that are needed.
        all_columns: Whether the others are needed as well; otherwise they are left empty.

    Raises:
        InputError: where pyarrow is not installed, or the file is no Parquet.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"{file.name}: reading Parquet needs pyarrow; {EXTRA}") from error
    with seekable(file) as stream, blamed_on(f"{file.name}: not a readable Parquet file"):
        table = ParquetFile(stream)
        names = table.schema_arrow.names
        yield 1, names
        needed = {config.sentence1_field, config.sentence2_field, config.label_field, config.id_field}
        unread = [] if all_columns else [name for name in names if name not in needed]
        line = 1
        for batch in table.iter_batches(_ROWS, columns=[name for name in names if name not in unread]):
            columns = dict(zip(batch.schema.names, (column.to_pylist() for column in batch.columns), strict=True))
            columns |= {name: [None] * batch.num_rows for name in unread}
            for row, values in enumerate(zip(*(columns[name] for name in names), strict=True), line):
                yield row, _texts(values, names, config.id_field)
            line += batch.num_rows


def _texts(values: Iterable[Any], names: Cells, id_field: str) -> Cells:
    """The values of a row as a CSV file would have them, but for an id that is a whole number."""
    cells = [_text(value) for value in values]
    if id_field in names[: len(cells)] and (cells[position := names.index(id_field)] or "").isdecimal():
        cells[position] = int(cells[position])
    return cells


def _text(value: Any) -> Any:
    """A cell as text: 1.0 is ``1``, a date has no midnight, an empty cell is None. Lists are left as they are."""
    match value:
        case None | "":
            return None
        case bool():
            return str(value).lower()
        case float() | Decimal() if value != value:  # NaN: how pandas says that there is nothing
            return None
        case float() | Decimal() if value == value.__trunc__():
            return str(int(value))
        case datetime() if value.time() == time() and value.tzinfo is None:
            return value.date().isoformat()
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.decode("utf-8")
        case int() | float() | Decimal():
            return str(value)
    return value
