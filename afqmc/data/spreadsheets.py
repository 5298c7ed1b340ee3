"""Tables that are not text: Excel workbooks and Parquet, as rows of cells with their own values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from afqmc.data.cells import Unusable, as_text, plain
from afqmc.data.compression import EXTRA, seekable
from afqmc.data.config import DatasetConfig
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError, as_input_error

Cells = list[Any]

_ERRORS = {"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"}  # results of formulas that failed
_ROWS = 8192  # of Parquet held at once


def xlsx_cells(file: DataFile, config: DatasetConfig) -> Iterator[tuple[int, Cells]]:
    """The rows of a workbook's first sheet that hold anything, with their numbers; formulas as their saved results.

    Raises:
        InputError: where openpyxl is not installed, or the file is no workbook.
    """
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise InputError(f"{file.name}: reading .xlsx needs openpyxl; {EXTRA}") from error
    with seekable(file) as stream, as_input_error(f"{file.name}: not a readable .xlsx workbook"):
        sheet = _first_sheet(file, stream)
        names: Cells = list(config.columns or [])
        needed, formulas = _positions(names, config), _Formulas(file, stream)
        header: Cells = []
        has_rows = False
        for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
            cells = [_cell(value) for value in values]
            while cells and cells[-1] in (None, ""):
                cells.pop()
            if cells and not names:
                header, names = cells, [as_text(plain(cell)) or "" for cell in cells]
                needed = _positions(names, config)
                yield line, names
                continue
            cells += [None] * (len(names) - len(cells))
            if any(cells[position] is None for position in needed):
                formulas.fill(line, cells, needed)
            if any(cell not in (None, "") for cell in cells):
                has_rows = True
                yield line, names if cells == header else cells
        if not has_rows and file.notes:
            raise InputError(f"{file.name}: no pairs; {'; '.join(file.notes)}; the pairs must be in the first sheet")


def _positions(names: Cells, config: DatasetConfig) -> list[int]:
    fields = (config.sentence1_field, config.sentence2_field, config.label_field, config.id_field)
    return [names.index(field) for field in fields if field in names]


def _first_sheet(file: DataFile, stream: IO[bytes], results: bool = True) -> Any:
    """The first sheet of a workbook, with the results of its formulas or the formulas themselves."""
    from openpyxl import load_workbook

    with warnings.catch_warnings(action="ignore"):  # of styles that are missing, and other matters of looks
        book = load_workbook(stream, read_only=True, data_only=results)
    if not book.worksheets:
        raise InputError(f"{file.name}: the workbook has no sheet with cells")
    sheet = book.worksheets[0]
    if len(book.sheetnames) > 1:
        hidden = "" if sheet.sheet_state == "visible" else "hidden "
        file.note(f"read from the {hidden}sheet {sheet.title!r}, the first of {len(book.sheetnames)}")
    sheet.reset_dimensions()  # some programs write wrong ones
    return sheet


class _Formulas:
    """Finds formulas that were saved without a result. The sheet is read again once a needed cell is empty."""

    def __init__(self, file: DataFile, stream: IO[bytes]) -> None:
        self.file, self.stream = file, stream
        self.rows: Iterator[tuple[int, Any]] | None = None

    def fill(self, line: int, cells: Cells, needed: list[int]) -> None:
        """Mark the needed cells that are such formulas. Lines are given in ascending order."""
        if self.rows is None:
            self.rows = enumerate(_first_sheet(self.file, self.stream, results=False).iter_rows(), 1)
        row = next((cells for number, cells in self.rows if number == line), ())
        for position in needed:
            if cells[position] is None and position < len(row) and row[position].data_type == "f":
                formula = row[position].value
                cells[position] = Unusable(
                    f"is a formula without a saved result ({getattr(formula, 'text', formula)}); open the workbook in "
                    "Excel or LibreOffice and save it"
                )


def _cell(value: Any) -> Any:
    is_error = isinstance(value, str) and value in _ERRORS
    return Unusable(f"is {value}, the result of a formula that failed", value) if is_error else value


def parquet_cells(file: DataFile, config: DatasetConfig, all_columns: bool) -> Iterator[tuple[int, Cells]]:
    """The names of a Parquet file's columns, and then its rows, counted from 1.

    Args:
        file: What to read.
        config: Names the columns that are needed.
        all_columns: Whether the others are needed as well, with their types: every cell is a scalar of pyarrow then.
            Otherwise the others are left empty.

    Raises:
        InputError: where pyarrow is not installed, or the file is no Parquet.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"{file.name}: reading Parquet needs pyarrow; {EXTRA}") from error
    with seekable(file) as stream, as_input_error(f"{file.name}: not a readable Parquet file"):
        table = ParquetFile(stream)
        names = table.schema_arrow.names
        yield 1, names
        needed = {config.sentence1_field, config.sentence2_field, config.label_field, config.id_field}
        unread = [] if all_columns else [name for name in names if name not in needed]
        line = 1
        for batch in table.iter_batches(_ROWS, columns=[name for name in names if name not in unread]):
            cells = (_values(column, all_columns) for column in batch.columns)
            columns = dict(zip(batch.schema.names, cells, strict=True))
            columns |= {name: [None] * batch.num_rows for name in unread}
            for row, values in enumerate(zip(*(columns[name] for name in names), strict=True), line):
                yield row, list(values)
            line += batch.num_rows


def _values(column: Any, with_types: bool) -> Cells:
    """The cells of a column; as scalars where Python has no value for one of them, so that its row can be named."""
    if not with_types:
        with suppress(ValueError, OverflowError):
            return list(column.to_pylist())
    return list(column)
