"""Files of a run directory that may come from anybody: plain data of a sensible size, or a line on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afqmc.errors import InputError, first_line

_SMALL, _LARGE = 1 << 20, 1 << 28  # bytes: one object or config; a file of rows
_DEEP = 16  # levels of nesting; no config of ours has more than four


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
    lines = _text(path, _LARGE).splitlines()
    try:
        rows = json.loads("[" + ",".join(lines) + "]")  # at once: several times quicker than line by line
        if len(rows) == len(lines) and all(type(row) is dict for row in rows):
            return list(rows)
    except (ValueError, RecursionError):
        pass  # the lines one by one say which it is
    return [_object(_json(line, where), where) for line, where in _numbered(lines, path.name)]


def read_config(path: Path) -> dict[str, Any]:
    """A saved config as dotted keys, ``{"lr": 1e-5, "trainer.max_steps": None}``, lists left whole.

    Nothing in it is constructed, resolved or repeated: tags, interpolations and anchors are refused.

    Raises:
        InputError: naming the file, and the key or line.
    """
    import yaml

    text, name = _text(path, _SMALL), path.name
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_deep(yaml.parse(text, loader), name)
        content = yaml.load(text, loader)  # noqa: S506 - both loaders are the safe ones
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{name}{line}: not a saved config: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not a saved config: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{name}: not a saved config: no keys in it")
    found = dict(_flat(content, ""))
    for key, value in found.items():
        if "${" in f"{key}{value}":
            raise InputError(f"{name}: {key}={value}: a saved config is literal; interpolations are not resolved here")
    return found


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


def _refuse_deep(events: Any, name: str) -> None:
    """On deep nesting YAML's C loader overflows the stack, and aliases multiply; its events do neither."""
    import yaml

    depth = 0
    for event in events:
        if getattr(event, "anchor", None) is not None:
            raise InputError(f"{name}, line {event.start_mark.line + 1}: not a saved config: an anchor or alias")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEP:
            raise InputError(f"{name}, line {event.start_mark.line + 1}: not a saved config: nested too deep")


def _flat(node: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """What JSON can say; dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
