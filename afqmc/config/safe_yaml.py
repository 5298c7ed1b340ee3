"""What a saved config may be: short, flat and literal. YAML itself lets a kilobyte unfold to gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import SMALL, TooLargeError, read_bytes

_DEEPEST = 20
# the quick one where it is there; it overflows the stack on what is nested deep, but for its events
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml_limits(path: Path) -> bytes:
    """Check a config file as a stream of marks, before anything is built from it; returns its content.

    Raises:
        InputError: naming the file, and the line.
    """
    try:
        content = read_bytes(path, SMALL)
    except TooLargeError as error:
        raise InputError(f"{path}: too large; a run's config has at most {SMALL} bytes") from error
    depth = 0
    try:
        events: Iterator[Any] = yaml.parse(content, Loader=_LOADER)
        for event in events:
            where = f"{path}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{where}: *{event.anchor}: a saved config is literal; aliases are not followed here")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise InputError(f"{where}: nested deeper than {_DEEPEST} levels; a run's config is not")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error
    return content


def literal_yaml(path: Path) -> Any:
    """Read a config file as plain containers.

    Raises:
        InputError: naming the file, and the line.
    """
    content = check_yaml_limits(path)
    try:
        return yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe one: it refuses tags
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error


def read_literal(path: Path) -> dict[str, Any]:
    """A saved config of any version by dotted keys, ``{"lr": 1e-5, "trainer.max_steps": None}``, lists left whole.

    Raises:
        InputError: naming the file, and the line or key.
    """
    if not path.is_file():  # a pipe or a device would be waited for
        raise InputError(f"{path}: {'not a plain file' if path.exists() else 'missing'}")
    content = literal_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a run's config")
    found = dict(_flat(content, ""))
    for key, value in found.items():
        if "${" in f"{key}{value}":
            raise InputError(f"{path}: {key}={value}: a saved config is literal; interpolations are not resolved here")
    return found


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
