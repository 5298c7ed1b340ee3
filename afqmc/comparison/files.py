"""Files of a run directory that may come from anybody: plain data of a sensible size, or a line on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afqmc.config.literal import read_literal
from afqmc.errors import InputError, first_line

_SMALL, _LARGE = 1 << 20, 1 << 28  # bytes: one object or config; a file of rows


def read_object(path: Path) -> dict[str, Any]:
    """A file with one JSON object.

    Raises:
        InputError: when there is none.
    """
    return _object(_json(_text(path, _SMALL), path.name), path.name)


def read_list(path: Path) -> list[Any]:
    """A file with one JSON list.

    Raises:
        InputError: when there is none.
    """
    content = _json(_text(path, _SMALL), path.name)
    if not isinstance(content, list):
        raise InputError(f"{path.name}: not a JSON list")
    return content


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A file with a JSON object a line.

    Raises:
        InputError: naming the line that is none.
    """
    lines = [line for line in _text(path, _LARGE).split("\n") if line.strip()]
    try:
        rows = json.loads("[" + ",".join(lines) + "]")  # at once: several times quicker than line by line
        if len(rows) == len(lines) and all(type(row) is dict for row in rows):
            return list(rows)
    except (ValueError, RecursionError):
        pass  # the lines one by one say which it is
    return [_object(_json(line, where), where) for line, where in _numbered(lines, path.name)]


def read_config(path: Path) -> dict[str, Any]:
    """A saved config as dotted keys.

    Raises:
        InputError: in a line, naming the file, and the key or line.
    """
    try:
        return read_literal(path)
    except InputError as error:
        raise InputError(first_line(error).replace(str(path), path.name)) from error


def read_text(path: Path) -> str:
    """A file of lines, such as a log.

    Raises:
        InputError: when it cannot be read.
    """
    return _text(path, _LARGE)


def _text(path: Path, limit: int) -> str:
    try:
        if not path.is_file():  # a pipe or a device would be waited for
            raise InputError(f"{path.name}: {'not a plain file' if path.exists() else 'missing'}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise InputError(f"{path.name}: larger than {limit >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not UTF-8 text") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not readable JSON: {first_line(error)}") from error


def _object(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where}: not a JSON object")
    return content


def _numbered(lines: list[str], name: str) -> Iterator[tuple[str, str]]:
    return ((line, f"{name}, line {number}") for number, line in enumerate(lines, 1))
