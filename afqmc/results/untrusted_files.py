"""Files of a run directory that may come from anybody: plain data of a sensible size, or a line on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afqmc.config.renamed_keys import upgrade
from afqmc.config.safe_yaml import read_literal
from afqmc.results.translatable import msg
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.safe_files import LARGE, SMALL, NotRegularError, TooLargeError, read_bytes


def read_object(path: Path) -> dict[str, Any]:
    """A file with one JSON object.

    Raises:
        InputError: when there is none.
    """
    return _object(_json(_text(path, SMALL), path.name), path.name)


def read_list(path: Path) -> list[Any]:
    """A file with one JSON list.

    Raises:
        InputError: when there is none.
    """
    content = _json(_text(path, SMALL), path.name)
    if not isinstance(content, list):
        raise InputError(msg("{file}: not a JSON list", file=path.name))
    return content


def read_rows(path: Path, name: str | None = None) -> list[dict[str, Any]]:
    """A file with a JSON object a line; ``name`` is what a message calls it.

    Raises:
        InputError: naming the line that is none.
    """
    name = name or path.name
    lines = [line for line in _text(path, LARGE, name).split("\n") if line.strip()]
    try:
        rows = json.loads("[" + ",".join(lines) + "]")  # at once: several times quicker than line by line
        if len(rows) == len(lines) and all(type(row) is dict for row in rows):
            return list(rows)
    except (ValueError, RecursionError):
        pass  # the lines one by one say which it is
    return [_object(_json(line, where), where) for line, where in _numbered(lines, name)]


def read_config(path: Path) -> dict[str, Any]:
    """A saved config as dotted keys, with the names of this version.

    Raises:
        InputError: in a line, naming the file, and the key or line.
    """
    try:
        return upgrade(read_literal(path))
    except InputError as error:
        raise InputError(first_line(error).replace(str(path), path.name)) from error


def read_text(path: Path) -> str:
    """A file of lines, such as a log.

    Raises:
        InputError: when it cannot be read.
    """
    return _text(path, LARGE)


def _text(path: Path, limit: int, name: str | None = None) -> str:
    name = name or path.name
    try:
        content = read_bytes(path, limit)
    except (FileNotFoundError, NotRegularError) as error:
        kind = msg("not a plain file") if isinstance(error, NotRegularError) else msg("missing")
        raise InputError(msg("{file}: {why}", file=name, why=kind)) from error
    except TooLargeError as error:
        raise InputError(msg("{file}: larger than {size} MiB", file=name, size=limit >> 20)) from error
    except OSError as error:
        raise InputError(msg("{file}: cannot be read: {why}", file=name, why=error.strerror)) from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(msg("{file}: not UTF-8 text", file=name)) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(msg("{file}: not readable JSON: {why}", file=where, why=first_line(error))) from error


def _object(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(msg("{file}: not a JSON object", file=where))
    return content


def _numbered(lines: list[str], name: str) -> Iterator[tuple[str, str]]:
    return ((line, msg("{file}, line {number}", file=name, number=number)) for number, line in enumerate(lines, 1))
