"""Read pairs from JSON lines, CSV or TSV, row by row; every complaint names the file and the line."""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from afqmc.dataset.config import DatasetConfig, Format
from afqmc.errors import InputError, did_you_mean

Complain = Callable[[str], None]

# what a zip that is damaged, encrypted or gone raises, as it is opened or as it is read
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: two sentences, the name of their class where it is known, and where it was read."""

    id: int | str
    sentence1: str
    sentence2: str
    label: str | None
    line: int


@dataclass(frozen=True)
class DataFile:
    """Something to read: a file on disk, a member of a zip, or bytes. ``name`` is what messages call it."""

    name: str
    open: Callable[[], IO[bytes]]
    format: Format

    @classmethod
    def on_disk(cls, path: Path, config: DatasetConfig) -> DataFile:
        """A plain file.

        Raises:
            InputError: when it is missing, a directory, or unreadable.
        """
        if path.is_dir():
            raise InputError(f"{path}: is a directory; a file was expected")
        if not path.exists():
            siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            hint = did_you_mean(path.name, siblings) if 0 < len(siblings) <= 20 else ""
            raise InputError(f"{path}: no such file{hint}")
        try:
            path.open("rb").close()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(str(path), lambda: path.open("rb"), config.format_of(path))

    @classmethod
    def in_zip(cls, archive: Path, member: str, config: DatasetConfig) -> DataFile:
        """A file inside a zip, at any depth, found by the end of its path; it is never extracted.

        Raises:
            InputError: when the zip is damaged or has no such member.
        """
        try:
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
        except UNREADABLE as error:
            raise InputError(f"{archive}: not a readable zip ({error})") from error
        found = find_member(names, member)
        if found is None:
            held = [name for name in names if not name.endswith("/")]
            raise InputError(f"{archive}: no {member} in it; it holds {', '.join(held[:6]) or 'nothing'}")

        def read() -> IO[bytes]:
            with zipfile.ZipFile(archive) as opened:
                return opened.open(found)  # a stream that outlives the ZipFile: the last of the two closes the file

        return cls(f"{archive}/{found}", read, config.format_of(Path(member)))


def find_member(names: Iterable[str], wanted: str) -> str | None:
    """The name in a zip that is, or ends in, the wanted path; the shortest of several."""
    found = (name for name in names if f"/{name}".endswith(f"/{wanted}") and not name.endswith("/"))
    return min((name for name in found if "__MACOSX" not in name), key=len, default=None)


def read_pairs(
    file: DataFile, config: DatasetConfig, *, labelled: bool | None, complain: Complain | None = None
) -> Iterator[Pair]:
    """Yield the pairs of a file, in its order.

    Args:
        file: What to read.
        config: Names of the fields.
        labelled: True: a label is required; False: labels are not read; None: all rows or none have one.
        complain: Is called with each complaint, and the row is left out. Without it, the first one is raised.

    Raises:
        InputError: ``file:line: what was found; what is legal``.
    """

    def refuse(line: int, what: str) -> None:
        message = f"{file.name}:{line}: {what}"
        if complain is None:
            raise InputError(message)
        complain(message)

    rows = _json_rows(file, refuse) if file.format is Format.jsonl else _csv_rows(file, config, refuse)
    kind: type | None = None
    seen_label: bool | None = labelled
    for number, (line, row) in enumerate(rows):
        try:
            first = _sentence(row, config.sentence1_field)
            second = _sentence(row, config.sentence2_field)
            value = None if labelled is False else _label(row, config.label_field, kind)
            if seen_label and value is None:
                raise ValueError(_missing(row, config.label_field))
            if seen_label is False and value is not None:
                raise ValueError(f"has a {config.label_field!r}, and the rows before it have none")
        except ValueError as error:
            refuse(line, str(error))
            continue
        if labelled is None:
            seen_label = value is not None
        if value is not None:
            kind = type(value)
        identity = row.get(config.id_field)
        yield Pair(
            id=identity if isinstance(identity, int | str) else number,
            sentence1=first,
            sentence2=second,
            label=None if value is None else label_name(value),
            line=line,
        )


def label_name(value: str | int | bool) -> str:
    """A label as its name: ``1`` and ``"1"`` are both ``"1"``, ``true`` is ``"true"``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _missing(row: dict[str, Any], field: str) -> str:
    if field in row:
        return f"{field!r} is empty"
    return f"no {field!r}" + (f"{did_you_mean(field, row)} (dataset.*_field names the fields)" if row else "")


def _sentence(row: dict[str, Any], field: str) -> str:
    text = row.get(field)
    if text is None:
        raise ValueError(_missing(row, field))
    if not isinstance(text, str):
        raise ValueError(f"{field!r} is {text!r}; it must be a string")
    if not text.strip():
        raise ValueError(_missing(row, field))
    try:
        text.encode()  # JSON may spell half an emoji, which no tokenizer takes
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise ValueError(f"{field!r} has half a character, {half}; surrogates must come in pairs") from error
    return text


def _label(row: dict[str, Any], field: str, kind: type | None) -> str | int | bool | None:
    value = row.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int):
        raise ValueError(f"{field!r} is {value!r}; it must be a string or a whole number")
    if kind not in (None, type(value)):
        raise ValueError(f"mixed label types: {value!r} here, {kind.__name__} before" if kind else "")
    return value


def _text_lines(file: DataFile, refuse: Callable[[int, str], None]) -> Iterator[tuple[int, str]]:
    for line, raw in enumerate(_raw_lines(file), 1):
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = raw[error.start : error.start + 1].hex()
            refuse(
                line,
                f"not UTF-8 (byte 0x{bad} at position {error.start}); convert it, as by: iconv -f GB18030 -t UTF-8",
            )


def _raw_lines(file: DataFile) -> Iterator[bytes]:
    try:
        with file.open() as stream:
            yield from stream
    except UNREADABLE as error:
        raise InputError(f"{file.name}: cannot be read ({error})") from error


def _json_rows(file: DataFile, refuse: Callable[[int, str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in _text_lines(file, refuse):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # a ValueError alone: a number of more than 4300 digits
            hint = "; the file must hold one JSON object a line, not an array" if text.lstrip().startswith("[") else ""
            refuse(line, f"broken JSON: {error}{hint}")
            continue
        if not isinstance(row, dict):
            refuse(line, f"is {type(row).__name__}; each line must be a JSON object")
            continue
        yield line, row


def _csv_rows(
    file: DataFile, config: DatasetConfig, refuse: Callable[[int, str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
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
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            refuse(line, f"broken {file.format.value}: {error}")
            return
        if not any(cells):
            continue
        if columns is None:
            columns = cells
            continue
        if len(cells) != len(columns):
            refuse(line, f"{len(cells)} columns; {len(columns)} were expected ({', '.join(columns)})")
            continue
        yield line, dict(zip(columns, cells, strict=True))
