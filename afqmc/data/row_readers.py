"""Read the rows of a data file of any format as dictionaries; each error names its line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, dropwhile, islice
from typing import Any

from afqmc.data.compression import LONGEST
from afqmc.data.config import DatasetConfig, Format, Quoting
from afqmc.data.encoding import RejectLine, text_lines
from afqmc.data.header import likely_delimiter, most_common, wrong_first_row, wrong_width
from afqmc.data.sources import DataFile
from afqmc.data.spreadsheets import Cells, parquet_cells, xlsx_cells
from afqmc.utils.errors import InputError, elide

Row = tuple[int, dict[str, Any]]
_QUOTED = '"(?:[^"]|"")*"'  # regular expression for a cell in quotation marks
_MARK = "\ufeff"  # a byte order mark, which the error of json.loads names
_FIRST_ROWS = 10  # rows that show whether quotation marks enclose cells


def iter_rows(file: DataFile, config: DatasetConfig, reject: RejectLine, all_columns: bool = True) -> Iterator[Row]:
    """Return an iterator over the rows, each with the line on which it ends; blank lines are skipped.

    Args:
        file: The file to read.
        config: Says how to read it.
        reject: Called with the line of an invalid row and the reason; the row is then skipped.
        all_columns: Whether columns are needed that the config does not name; otherwise a format may leave them empty.

    Raises:
        InputError: if the rest of the file cannot be read either.
    """
    match file.format:
        case Format.xlsx:
            return _table_rows(file, config, reject, xlsx_cells(file, config))
        case Format.parquet:
            return _table_rows(file, config, reject, parquet_cells(file, config, all_columns), own_names=True)
        case Format.csv | Format.tsv:
            return _table_rows(file, config, reject, _delimited_cells(file, config, reject))
        case _:
            return _json_rows(file, config, reject)


def _json_rows(file: DataFile, config: DatasetConfig, reject: RejectLine) -> Iterator[Row]:
    first = None
    for line, text in text_lines(file, config.encoding, reject):
        if not text.strip():
            continue
        first = first or line
        try:
            row = (json.loads if text.startswith(_MARK) else _decode_row)(text)
        except (ValueError, RecursionError) as error:  # a number of over 4300 digits is a plain ValueError
            reject(line, f"broken JSON: {error}{_json_hint(text.lstrip(), line == first)}")
            continue
        if not isinstance(row, dict):
            reject(line, f"is {type(row).__name__}; each line must be a JSON object")
            continue
        yield line, row


def _json_hint(text: str, is_first: bool) -> str:
    """Return a hint on fixing a line that is not JSON. Only the first line shows whether the file is a table."""
    if text.startswith("["):
        return "; the file must have one JSON object per line, not an array"
    if not is_first or text.startswith("{") or not (mark := likely_delimiter(text)):
        return ""
    format = Format.tsv if mark == "a tab" else Format.csv
    return f"; the line seems to be {format.name.upper()}: set dataset.format={format.value}"


def _unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, rejecting duplicate keys."""
    row = dict(items)
    if len(row) < len(items):
        raise ValueError(f"the key {most_common(key for key, _ in items)!r} appears twice")
    return row


_decode_json = json.JSONDecoder(object_pairs_hook=_unique_keys).decode  # json.loads would build a decoder per line
# two thirds of the time, but it accepts duplicate keys and text afterwards
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _decode_row(text: str) -> Any:
    """Decode a line of JSON, rejecting duplicate keys.

    An object has at most as many keys as its line has colons. If none of them is lost, then no key appears twice.

    Raises:
        ValueError: for text that is not JSON, and for duplicate keys.
        RecursionError: for deeply nested objects.
    """
    try:
        row, end = _scan_json(text, 0)
    except StopIteration:  # not at the start of a value
        return _decode_json(text)
    if type(row) is dict and len(row) == text.count(":") and text[end:] in ("\n", "\r\n", ""):
        return row
    return _decode_json(text)


def _table_rows(
    file: DataFile,
    config: DatasetConfig,
    reject: RejectLine,
    table: Iterator[tuple[int, Cells]],
    own_names: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a table as dictionaries. Column names come from the first row or from ``dataset.columns``.

    Args:
        file: The file that is read.
        config: The dataset group.
        reject: As in ``read_rows``.
        table: Line and cells of each row.
        own_names: The first row always has the column names, as in Parquet.
    """
    columns: Cells | None = None
    for line, cells in table:
        if columns is None:
            columns = cells if config.columns is None or own_names else list(config.columns)
            if reason := wrong_first_row(cells, config, own_names):
                sheet = "".join(f"; {note}" for note in file.notes) if file.format is Format.xlsx else ""
                raise InputError(f"{file.name}:{line}: {elide(reason)}{sheet}")
            if columns is cells:
                continue
        if len(cells) != len(columns):
            breaks = sum(cell.count("\n") for cell in cells if isinstance(cell, str))
            reject(line - breaks, wrong_width(cells, columns, breaks))
        elif cells == columns:
            reject(line, "is the header line again")
        else:
            yield line, dict(zip(columns, cells, strict=True))


def _delimited_cells(file: DataFile, config: DatasetConfig, reject: RejectLine) -> Iterator[tuple[int, Cells]]:
    """Yield the cells of each non-empty row of a CSV or TSV file, with the line on which the row ends."""
    line, start = 0, 1  # csv.reader's line_num does not count rejected lines

    def texts() -> Iterator[str]:
        nonlocal line
        for line, text in text_lines(file, config.encoding, reject):  # noqa: B007  the loop below reads `line`
            yield text

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # applies to the whole process; pandas does not use it
    lines = dropwhile(lambda text: not text.strip(), texts())
    first = next(lines, "")
    delimiter = config.delimiter_of(file.format)
    quoted = _is_quoted(file, config, first, delimiter)
    reader = csv.reader(
        chain([first], lines),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=quoted,
    )
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            start = line + 1
    except csv.Error as error:
        raise InputError(_csv_error(file, config, start, line, str(error))) from error


def _is_quoted(file: DataFile, config: DatasetConfig, first: str, delimiter: str) -> bool:
    """Return whether quotation marks enclose cells. In LCQMC and other TSV files they are ordinary text.

    Raises:
        InputError: for a TSV file that leaves this open: cells of its first rows are quoted, but its header is not.
    """
    if config.quoting is not Quoting.auto:
        return config.quoting is Quoting.double
    if file.format is not Format.tsv:
        return True
    quoted = re.fullmatch(f"{_QUOTED}(?:{re.escape(delimiter)}{_QUOTED})+", first.strip()) is not None
    if quoted and config.columns is not None:
        raise InputError(
            f"{file.name}:1: every cell is in quotation marks; dataset.quoting=double removes them, "
            "dataset.quoting=none keeps them as text"
        )
    if not quoted and (line := _first_quoted_pair(file, config, delimiter)):
        raise InputError(
            f"{file.name}:{line}: both sentences are in quotation marks, here and in the rows after it; "
            "dataset.quoting=double removes them, dataset.quoting=none keeps them as text"
        )
    return quoted


def _first_quoted_pair(file: DataFile, config: DatasetConfig, delimiter: str) -> int:
    """Return the line of the first pair if both sentences of all first rows are in quotation marks, else 0."""
    mark = re.escape(delimiter)
    cell = re.compile(f"({_QUOTED}(?={mark}|$)|[^{mark}]*)(?:{mark}|$)")
    lines = (
        (line, [match[1] for match in cell.finditer(text.strip("\r\n"))])
        for line, text in text_lines(file, config.encoding, lambda *_: None)
        if text.strip()
    )
    columns = config.columns or next(lines, (0, []))[1]
    if config.sentence1_field not in columns or config.sentence2_field not in columns:
        return 0
    indices = [columns.index(config.sentence1_field), columns.index(config.sentence2_field)]
    first_rows = list(islice(lines, _FIRST_ROWS))
    quoted = all(
        index < len(cells) and re.fullmatch(_QUOTED, cells[index]) for _, cells in first_rows for index in indices
    )
    return first_rows[0][0] if first_rows and quoted else 0


def _csv_error(file: DataFile, config: DatasetConfig, start: int, line: int, reason: str) -> str:
    """Return the message for a row, from line ``start`` to ``line``, that csv.reader cannot parse."""
    if "new-line character" in reason:
        reason = "a carriage return stands alone in a cell, or ends lines as on an old Mac; convert it to a line feed"
    if line == start and "unexpected end" not in reason:
        return f"{file.name}:{line}: broken {file.format.value}: {reason}"
    lines = text_lines(file, config.encoding, lambda *_: None)
    row = islice(dropwhile(lambda numbered: numbered[0] < start, lines), line - start + 1)
    opened = _last_opening_quote(row, config.delimiter_of(file.format)) or start
    problem = "is not closed" if "unexpected end" in reason else f"is not closed before line {line} ({reason})"
    return (
        f"{file.name}:{opened}: a quotation mark opens a cell here and {problem}; write a mark that is part of the "
        "text twice, or set dataset.quoting=none if all marks are text"
    )


def _last_opening_quote(lines: Iterable[tuple[int, str]], delimiter: str) -> int:
    """Return the line of the last quotation mark that opens a cell, or 0.

    The search ends at text after a closing quotation mark, because the cell was meant to end before it.
    """
    mark = re.escape(delimiter)
    opening, inside, before = 0, False, delimiter
    for line, text in lines:
        for match in re.finditer(f'"|{mark}|[^"{mark}]+', text):
            piece = match.group()
            if piece == '"' and (inside or before in (delimiter, "\n", "closed")):
                opening = line if not inside and before != "closed" else opening
                inside = not inside
                before = "" if inside else "closed"
            elif before == "closed" and piece != delimiter and piece.strip("\r\n"):
                return opening
            else:
                before = piece if piece == delimiter else piece[-1]
    return opening
