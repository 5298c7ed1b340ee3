"""Rows of a data file as mappings, in whichever format; every complaint has its line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, dropwhile, islice
from typing import Any

from afqmc.dataset.config import DatasetConfig, Format, Quoting
from afqmc.dataset.content import LONGEST
from afqmc.dataset.encoding import Refuse, text_lines
from afqmc.dataset.files import DataFile
from afqmc.dataset.header import likely_delimiter, most_common, wrong_first_row, wrong_width
from afqmc.dataset.tables import Cells, parquet_cells, xlsx_cells
from afqmc.errors import InputError, in_brief

Row = tuple[int, dict[str, Any]]
_ENCLOSED = '"(?:[^"]|"")*"'  # a cell in quotation marks
_FIRST_ROWS = 10  # rows that show whether quotation marks enclose cells


def read_rows(file: DataFile, config: DatasetConfig, refuse: Refuse, all_columns: bool = True) -> Iterator[Row]:
    """Each row with the number of the line it ends on; blank lines are skipped.

    Args:
        file: What to read.
        config: How it is written.
        refuse: Is called with the line of a bad row and what is wrong with it; the row is left out.
        all_columns: Whether columns are needed that the config does not name; a format may leave those empty.

    Raises:
        InputError: where the rest of the file cannot be read either.
    """
    match file.format:
        case Format.xlsx:
            return _named(file, config, refuse, xlsx_cells(file, config))
        case Format.parquet:
            return _named(file, config, refuse, parquet_cells(file, config, all_columns), own_names=True)
        case Format.csv | Format.tsv:
            return _named(file, config, refuse, _delimited_cells(file, config, refuse))
        case _:
            return _json_rows(file, config, refuse)


def _json_rows(file: DataFile, config: DatasetConfig, refuse: Refuse) -> Iterator[Row]:
    first = None
    for line, text in text_lines(file, config.encoding, refuse):
        if not text.strip():
            continue
        first = first or line
        try:
            row = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # a ValueError alone: a number of more than 4300 digits
            refuse(line, f"broken JSON: {error}{_json_hint(text.lstrip(), line == first)}")
            continue
        if not isinstance(row, dict):
            refuse(line, f"is {type(row).__name__}; each line must be a JSON object")
            continue
        yield line, row


def _json_hint(text: str, is_first: bool) -> str:
    """What to do about a line that is not JSON; only the first line shows whether the file is a table."""
    if text.startswith("["):
        return "; the file must hold one JSON object a line, not an array"
    if not is_first or text.startswith("{") or not (mark := likely_delimiter(text)):
        return ""
    format = Format.tsv if mark == "a tab" else Format.csv
    return f"; the line seems to be {format.name.upper()}: set dataset.format={format.value}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each key once: which of two values was meant nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {most_common(key for key, _ in pairs)!r} is there twice")
    return found


def _named(
    file: DataFile, config: DatasetConfig, refuse: Refuse, table: Iterator[tuple[int, Cells]], own_names: bool = False
) -> Iterator[Row]:
    """The rows of a table under the names of its columns: its own, those of its header line, or ``dataset.columns``."""
    columns: Cells | None = None
    for line, cells in table:
        if columns is None:
            columns = cells if config.columns is None or own_names else list(config.columns)
            if reason := wrong_first_row(cells, config, own_names):
                sheet = "".join(f"; {note}" for note in file.notes) if file.format is Format.xlsx else ""
                raise InputError(f"{file.name}:{line}: {in_brief(reason)}{sheet}")
            if columns is cells:
                continue
        if len(cells) != len(columns):
            breaks = sum(cell.count("\n") for cell in cells if isinstance(cell, str))
            refuse(line - breaks, wrong_width(cells, columns, breaks))
        elif cells == columns:
            refuse(line, "is the header line again")
        else:
            yield line, dict(zip(columns, cells, strict=True))


def _delimited_cells(file: DataFile, config: DatasetConfig, refuse: Refuse) -> Iterator[tuple[int, Cells]]:
    """The cells of each line of a CSV or TSV file that has any, with the number of the line that the row ends on."""
    line, begin = 0, 1  # the reader's own line_num does not count the lines that were refused

    def texts() -> Iterator[str]:
        nonlocal line
        for line, text in text_lines(file, config.encoding, refuse):  # noqa: B007  it is read below
            yield text

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # of the whole process; pandas has its own
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
            begin = line + 1
    except csv.Error as error:
        raise InputError(_broken(file, config, begin, line, str(error))) from error


def _is_quoted(file: DataFile, config: DatasetConfig, first: str, delimiter: str) -> bool:
    """Whether quotation marks enclose cells. LCQMC and other TSV files have them as text.

    Raises:
        InputError: for a TSV file with them around the cells of its first rows, but not around those of its header.
    """
    if config.quoting is not Quoting.auto:
        return config.quoting is Quoting.double
    if file.format is not Format.tsv:
        return True
    enclosed = re.fullmatch(f"{_ENCLOSED}(?:{re.escape(delimiter)}{_ENCLOSED})+", first.strip()) is not None
    if enclosed and config.columns is not None:
        raise InputError(
            f"{file.name}:1: every cell is in quotation marks; dataset.quoting=double takes them off, "
            "dataset.quoting=none keeps them as text"
        )
    if not enclosed and (line := _enclosed_sentences(file, config, delimiter)):
        raise InputError(
            f"{file.name}:{line}: both sentences are in quotation marks, here and in the rows after it; "
            "dataset.quoting=double takes them off, dataset.quoting=none keeps them as text"
        )
    return enclosed


def _enclosed_sentences(file: DataFile, config: DatasetConfig, delimiter: str) -> int:
    """The first line with a pair, where both sentences of the first rows are in quotation marks; otherwise 0."""
    mark = re.escape(delimiter)
    cell = re.compile(f"({_ENCLOSED}(?={mark}|$)|[^{mark}]*)(?:{mark}|$)")
    lines = (
        (line, [found[1] for found in cell.finditer(text.strip("\r\n"))])
        for line, text in text_lines(file, config.encoding, lambda *_: None)
        if text.strip()
    )
    columns = config.columns or next(lines, (0, []))[1]
    if config.sentence1_field not in columns or config.sentence2_field not in columns:
        return 0
    places = [columns.index(config.sentence1_field), columns.index(config.sentence2_field)]
    first = list(islice(lines, _FIRST_ROWS))
    enclosed = all(
        place < len(cells) and re.fullmatch(_ENCLOSED, cells[place]) for _, cells in first for place in places
    )
    return first[0][0] if first and enclosed else 0


def _broken(file: DataFile, config: DatasetConfig, begin: int, line: int, reason: str) -> str:
    """What is wrong with the row of the lines from ``begin`` to ``line`` that the CSV reader cannot take apart."""
    if "new-line character" in reason:
        reason = "a carriage return stands alone in a cell, or ends lines as on an old Mac; convert it to a line feed"
    if line == begin and "unexpected end" not in reason:
        return f"{file.name}:{line}: broken {file.format.value}: {reason}"
    lines = text_lines(file, config.encoding, lambda *_: None)
    row = islice(dropwhile(lambda numbered: numbered[0] < begin, lines), line - begin + 1)
    opened = _last_opening(row, config.delimiter_of(file.format)) or begin
    end = "is not closed" if "unexpected end" in reason else f"is not closed before line {line} ({reason})"
    return (
        f"{file.name}:{opened}: a quotation mark opens a cell here and {end}; double one that is part of a text, or "
        "set dataset.quoting=none where all are"
    )


def _last_opening(lines: Iterable[tuple[int, str]], delimiter: str) -> int:
    """The line with the last quotation mark that opens a cell, up to text that follows a closing one; 0 if none."""
    mark = re.escape(delimiter)
    found, inside, before = 0, False, delimiter
    for line, text in lines:
        for match in re.finditer(f'"|{mark}|[^"{mark}]+', text):
            part = match.group()
            if part == '"' and (inside or before in (delimiter, "\n", "closed")):
                found = line if not inside and before != "closed" else found
                inside = not inside
                before = "" if inside else "closed"
            elif before == "closed" and part != delimiter and part.strip("\r\n"):
                return found
            else:
                before = part if part == delimiter else part[-1]
    return found
