"""Reads saved configs that may be untrusted: size, depth and aliases are limited before YAML is constructed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import SMALL, TooLargeError, read_bytes

_MAX_DEPTH = 20
# CSafeLoader is faster, but overflows the stack if it constructs deeply nested YAML; parsing events is safe
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml_limits(path: Path) -> bytes:
    """Check the size, depth and aliases of a config file on its event stream, and return its content.

    A kilobyte of YAML with aliases can expand to gigabytes.

    Raises:
        InputError: naming the file and the line.
    """
    try:
        content = read_bytes(path, SMALL)
    except TooLargeError as error:
        raise InputError(f"{path}: too large; a run's config has at most {SMALL} bytes") from error
    depth = 0
    try:
        events: Iterator[Any] = yaml.parse(content, Loader=_LOADER)
        for event in events:
            line = f"{path}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{line}: *{event.anchor}: a saved config is literal; aliases are not followed here")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise InputError(f"{line}: nested deeper than {_MAX_DEPTH} levels; a run's config is not")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error
    return content


def literal_yaml(path: Path) -> Any:
    """Read a config file as plain containers.

    Raises:
        InputError: naming the file and the line.
    """
    content = check_yaml_limits(path)
    try:
        return yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe loader, which rejects tags
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error


def read_literal(path: Path) -> dict[str, Any]:
    """Read a saved config of any version by dotted keys: ``{"lr": 1e-5, "trainer.max_steps": None}``.

    Raises:
        InputError: naming the file, and the line or key.
    """
    if not path.is_file():  # reading a pipe or a device could block
        raise InputError(f"{path}: {'not a plain file' if path.exists() else 'missing'}")
    content = literal_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a run's config")
    values = dict(_flatten(content, ""))
    for key, value in values.items():
        if "${" in f"{key}{value}":
            raise InputError(f"{path}: {key}={value}: a saved config is literal; interpolations are not resolved here")
    return values


def _flatten(node: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """Convert to JSON types; dates and other types become strings."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
