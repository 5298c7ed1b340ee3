"""Read files of an untrusted run directory: plain data of limited size, with one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afqmc.config.renamed_keys import upgrade
from afqmc.config.safe_yaml import read_literal
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.language import msg
from afqmc.utils.safe_files import LARGE, SMALL, NotRegularError, TooLargeError, read_bytes


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that contains a JSON object.

    Raises:
        InputError: If it cannot be read or contains something else.
    """
    return _require_object(_parse_json(_read(path, SMALL), path.name), path.name)


def read_list(path: Path) -> list[Any]:
    """Read a file that contains a JSON list.

    Raises:
        InputError: If it cannot be read or contains something else.
    """
    content = _parse_json(_read(path, SMALL), path.name)
    if not isinstance(content, list):
        raise InputError(msg("{file}: not a JSON list", file=path.name))
    return content


def read_jsonl(path: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; error messages call it ``name``.

    Raises:
        InputError: If it cannot be read, or a line is not a JSON object; names the line.
    """
    name = name or path.name
    text = _read(path, LARGE, name).strip("\n")
    try:
        rows: list[dict[str, Any]] = json.loads(f"[{text.replace(chr(10), ',')}]")  # all at once: several times faster
        if len(rows) == text.count("\n") + 1 and set(map(type, rows)) == {dict}:
            return rows
    except (ValueError, RecursionError):
        pass  # parse line by line: a line is empty or invalid
    lines = [line for line in text.split("\n") if line.strip()]
    return [_require_object(_parse_json(line, where), where) for line, where in _numbered(lines, name)]


def read_config(path: Path) -> dict[str, Any]:
    """Read a saved config as dotted keys; keys of earlier versions get their current names.

    Raises:
        InputError: In one line; names the file, and the key or line.
    """
    try:
        return upgrade(read_literal(path))
    except InputError as error:
        raise InputError(first_line(error).replace(str(path), path.name)) from error


def _read(path: Path, limit: int, name: str | None = None) -> str:
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


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(msg("{file}: not readable JSON: {why}", file=where, why=first_line(error))) from error


def _require_object(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(msg("{file}: not a JSON object", file=where))
    return content


def _numbered(lines: list[str], name: str) -> Iterator[tuple[str, str]]:
    return ((line, msg("{file}, line {number}", file=name, number=number)) for number, line in enumerate(lines, 1))
