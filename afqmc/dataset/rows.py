"""Rows of JSON lines, CSV or TSV as mappings; every complaint has its line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from afqmc.dataset.config import DatasetConfig, Format
from afqmc.dataset.files import UNREADABLE, DataFile
from afqmc.errors import InputError, in_brief

Refuse = Callable[[int, str], None]  # a line, and what is wrong with it
Row = tuple[int, dict[str, Any]]

_BINARY = {  # how files begin that are no text
    b"\xff\xfe": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"PK\x03\x04": "is a zip or an Excel file, not text; save the table as CSV, or name a zip by dataset.path",
    b"\xd0\xcf\x11\xe0": "is an old Excel file, not text; save the table as CSV",
    b"\x1f\x8b": "is packed by gzip; unpack it: gunzip",
    b"PAR1": "is Parquet, not text; write it as JSON lines or CSV",
}


def read_rows(file: DataFile, config: DatasetConfig, refuse: Refuse) -> Iterator[Row]:
    """Each row with the number of the line it ends on; blank lines are skipped."""
    return _json_rows(file, refuse) if file.format is Format.jsonl else _csv_rows(file, config, refuse)


def _text_lines(file: DataFile, refuse: Refuse) -> Iterator[tuple[int, str]]:
    for line, raw in enumerate(_raw_lines(file), 1):
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
            if told := _not_text(raw):
                raise InputError(f"{file.name}:{line}: {told}")
        try:
            yield line, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = raw[error.start : error.start + 1].hex()
            refuse(
                line,
                f"not UTF-8 (byte 0x{bad} at position {error.start}); convert it, as by: iconv -f GB18030 -t UTF-8",
            )


def _not_text(first: bytes) -> str:
    """What a file is whose first line is not text."""
    if b"\0" in first and not first.startswith(tuple(_BINARY)):
        return "holds zero bytes: a binary file, or UTF-16; UTF-8 text is read here"
    return next((told for begin, told in _BINARY.items() if first.startswith(begin)), "")


def _raw_lines(file: DataFile) -> Iterator[bytes]:
    try:
        with file.open() as stream:
            yield from stream
    except UNREADABLE as error:
        raise InputError(f"{file.name}: cannot be read ({error})") from error


def _json_rows(file: DataFile, refuse: Refuse) -> Iterator[Row]:
    for line, text in _text_lines(file, refuse):
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # a ValueError alone: a number of more than 4300 digits
            hint = "; the file must hold one JSON object a line, not an array" if text.lstrip().startswith("[") else ""
            refuse(line, f"broken JSON: {error}{hint}")
            continue
        if not isinstance(row, dict):
            refuse(line, f"is {type(row).__name__}; each line must be a JSON object")
            continue
        yield line, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each key once: which of two values was meant nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_most_common(key for key, _ in pairs)!r} is there twice")
    return found


def _most_common(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _csv_rows(file: DataFile, config: DatasetConfig, refuse: Refuse) -> Iterator[Row]:
    line = 0  # the reader's own line_num does not count the lines that were refused

    def texts() -> Iterator[str]:
        nonlocal line
        for line, text in _text_lines(file, refuse):  # noqa: B007  it is read below
            yield text

    # a quotation mark in a TSV file is text: LCQMC and its like do not quote
    if file.format is Format.tsv:
        reader = csv.reader(texts(), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(texts(), strict=True)
    columns = config.columns

    def broken(reason: str) -> NoReturn:
        raise InputError(f"{file.name}:{line}: broken {file.format.value}: {reason}")

    for cells in _cells(reader, broken):
        if columns is None:
            columns = cells
            if told := _bad_header(cells, config):
                raise InputError(f"{file.name}:{line}: {in_brief(told)}")
        elif len(cells) == len(columns):
            yield line, dict(zip(columns, cells, strict=True))
        else:
            refuse(line, f"{len(cells)} columns; {len(columns)} were expected ({', '.join(columns)})")


def _cells(reader: Iterator[list[str]], broken: Callable[[str], NoReturn]) -> Iterator[list[str]]:
    """The cells of each line that has any, up to the first that the reader cannot take apart."""
    try:
        yield from filter(any, reader)
    except csv.Error as error:
        broken(str(error))


def _bad_header(columns: list[str], config: DatasetConfig) -> str:
    """What is wrong with a header line, if anything."""
    fields = [config.sentence1_field, config.sentence2_field]
    missing = [field for field in fields if field not in columns]
    if len(columns) == 1 and (mark := next((mark for mark in ";\t|," if mark in columns[0]), "")):
        mark = "tab" if mark == "\t" else repr(mark)
        return f"one column, {columns[0]!r}: its delimiter seems to be {mark}; csv has ',', tsv a tab (dataset.format)"
    if len(missing) == 2 and config.label_field not in columns:
        wanted = ", ".join([*fields, config.label_field])
        return (
            f"the header has {', '.join(columns)}, and none of {wanted}; dataset.*_field names the columns, "
            "and a file without a header line needs dataset.columns=[...]"
        )
    return f"the header has {_most_common(columns)!r} twice" if len(set(columns)) < len(columns) else ""
