"""Read Excel workbooks and Parquet files as rows of typed cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from afqmc.data.cells import Unusable, cell_text, plain
from afqmc.data.compression import EXTRA, seekable
from afqmc.data.config import DatasetConfig
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError, as_input_error

Cells = list[Any]

_FORMULA_ERRORS = {
    "#NULL!",
    "#DIV/0!",
    "#VALUE!",
    "#REF!",
    "#NAME?",
    "#NUM!",
    "#N/A",
}  # what a failed formula leaves in its cell
_BATCH_ROWS = 8192  # Parquet rows read at once


def xlsx_cells(file: DataFile, config: DatasetConfig) -> Iterator[tuple[int, Cells]]:
    """Yield the non-empty rows of a workbook's first sheet, with their row numbers from 1.

    A formula is read as the result that is saved with the workbook. A failed formula, and one without a saved result in
    a column that the config names, is ``Unusable``. Short rows are padded with None.

    Raises:
        InputError: if openpyxl is not installed, or the file is not a workbook.
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
                header, names = cells, [cell_text(plain(cell)) or "" for cell in cells]
                needed = _positions(names, config)
                yield line, names
                continue
            cells += [None] * (len(names) - len(cells))
            if any(cells[position] is None for position in needed):
                formulas.fill(line, cells, needed)
            if any(cell not in (None, "") for cell in cells):
                has_rows = True
                # a header that occurs twice is yielded as text, so that the reader recognises and rejects it
                yield line, names if cells == header else cells
        if not has_rows and file.notes:
            raise InputError(f"{file.name}: no pairs; {'; '.join(file.notes)}; the pairs must be in the first sheet")


def _positions(names: Cells, config: DatasetConfig) -> list[int]:
    fields = (config.sentence1_field, config.sentence2_field, config.label_field, config.id_field)
    return [names.index(field) for field in fields if field in names]


def _first_sheet(file: DataFile, stream: IO[bytes], results: bool = True) -> Any:
    """Return the first sheet of a workbook, with the results of formulas or the formulas themselves."""
    from openpyxl import load_workbook

    with warnings.catch_warnings(action="ignore"):  # they concern missing styles and the like
        book = load_workbook(stream, read_only=True, data_only=results)
    if not book.worksheets:
        raise InputError(f"{file.name}: the workbook has no sheet with cells")
    sheet = book.worksheets[0]
    if len(book.sheetnames) > 1:
        hidden = "" if sheet.sheet_state == "visible" else "hidden "
        file.note(f"read from the {hidden}sheet {sheet.title!r}, the first of {len(book.sheetnames)}")
    sheet.reset_dimensions()  # some programs write wrong dimensions
    return sheet


class _Formulas:
    """Finds formulas that were saved without a result. The sheet is read a second time if a needed cell is empty."""

    def __init__(self, file: DataFile, stream: IO[bytes]) -> None:
        self.file, self.stream = file, stream
        self.rows: Iterator[tuple[int, Any]] | None = None

    def fill(self, line: int, cells: Cells, needed: list[int]) -> None:
        """Mark the needed cells that are such formulas. Calls must be in ascending order of lines."""
        if self.rows is None:
            self.rows = enumerate(_first_sheet(self.file, self.stream, results=False).iter_rows(), 1)
        row = next((row for row_line, row in self.rows if row_line == line), ())
        for position in needed:
            if cells[position] is None and position < len(row) and row[position].data_type == "f":
                formula = row[position].value
                cells[position] = Unusable(
                    f"is a formula without a saved result ({getattr(formula, 'text', formula)}); open the workbook in "
                    "Excel or LibreOffice and save it"
                )


def _cell(value: Any) -> Any:
    is_error = isinstance(value, str) and value in _FORMULA_ERRORS
    return Unusable(f"is {value}, the result of a formula that failed", value) if is_error else value


def parquet_cells(file: DataFile, config: DatasetConfig, all_columns: bool) -> Iterator[tuple[int, Cells]]:
    """Yield the column names of a Parquet file and then its rows, with their numbers from 1.

    Args:
        file: The file to read.
        config: Names the needed columns.
        all_columns: Whether the other columns are needed too, with their types. All cells are pyarrow scalars then.
            Otherwise the other columns are None.

    Raises:
        InputError: if pyarrow is not installed, or the file is not Parquet.
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
        for batch in table.iter_batches(_BATCH_ROWS, columns=[name for name in names if name not in unread]):
            cells = (_values(column, all_columns) for column in batch.columns)
            columns = dict(zip(batch.schema.names, cells, strict=True))
            columns |= {name: [None] * batch.num_rows for name in unread}
            for row, values in enumerate(zip(*(columns[name] for name in names), strict=True), line):
                yield row, list(values)
            line += batch.num_rows


def _values(column: Any, with_types: bool) -> Cells:
    """Return the cells of a column.

    They are pyarrow scalars if Python cannot represent one of them, so that the error can name its row.
    """
    if not with_types:
        with suppress(ValueError, OverflowError):
            return list(column.to_pylist())
    return list(column)
