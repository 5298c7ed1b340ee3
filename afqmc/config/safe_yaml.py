"""Reads saved configs that may be untrusted: size, depth and aliases are limited before YAML is constructed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from afqmc.utils.errors import InputError
from afqmc.utils.safe_files import SMALL, TooLargeError, read_bytes

_MAX_DEPTH = 20
# CSafeLoader is faster, but overflows the stack if it constructs deeply nested YAML; parsing events is safe
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGED = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # of the keys << and =


def check_yaml_limits(path: Path) -> bytes:
    """Check the size, depth and aliases of a config file on its event stream, and return its content.

    A kilobyte of YAML with aliases can expand to gigabytes.

    Raises:
        InputError: naming the file and the line.
    """
    content = _content(path)
    for _ in _events(path, content):
        pass
    return content


def literal_yaml(path: Path) -> Any:
    """Read a config file as plain containers.

    Raises:
        InputError: naming the file and the line.
    """
    try:
        return _construct(_events(path, _content(path)))
    except _UnusualError:
        content = check_yaml_limits(path)
    try:
        return yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe loader, which rejects tags
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, SMALL)
    except TooLargeError as error:
        raise InputError(f"{path}: too large; a run's config has at most {SMALL} bytes") from error


def _events(path: Path, content: bytes) -> Iterator[Any]:
    """Yield the events of YAML whose depth and aliases are within the limits."""
    depth = 0
    try:
        for event in yaml.parse(content, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                line = _line(path, event)
                raise InputError(f"{line}: *{event.anchor}: a saved config is literal; aliases are not followed here")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                line = _line(path, event)
                raise InputError(f"{line}: nested deeper than {_MAX_DEPTH} levels; a run's config is not")
            yield event
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error


def _line(path: Path, event: Any) -> str:
    return f"{path}:{event.start_mark.line + 1}"


class _UnusualError(Exception):
    """The file has YAML that no saved config has: tags, merged mappings, keys that are not texts."""


def _construct(events: Iterable[Any]) -> Any:
    """Return what a safe loader would construct from the events of one document; several times faster.

    Raises:
        _UnusualError: for YAML that is left to the loader.
    """
    documents: list[Any] = []
    open_nodes: list[list[Any]] = [documents]  # the values so far of each open node; keys and values alternate
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            open_nodes[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.tag is not None:
                raise _UnusualError
            open_nodes.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            values = open_nodes.pop()
            is_mapping = isinstance(event, yaml.MappingEndEvent)
            open_nodes[-1].append(_mapping(values) if is_mapping else values)
    if len(documents) != 1:
        raise _UnusualError
    return documents[0]


def _mapping(keys_and_values: list[Any]) -> dict[str, Any]:
    keys = keys_and_values[::2]
    if not all(type(key) is str for key in keys):
        raise _UnusualError
    return dict(zip(keys, keys_and_values[1::2], strict=True))


def _scalar(event: Any) -> Any:
    is_plain, is_quoted = event.implicit
    if is_plain:
        return _plain_scalar(event.value)
    if is_quoted:
        return event.value
    raise _UnusualError  # it has a tag


@lru_cache(maxsize=4096)  # the configs of a sweep have nearly the same values
def _plain_scalar(text: str) -> Any:
    """Return the value that a safe loader gives an unquoted text, such as 1.0e-05, null or true."""
    loader = yaml.SafeLoader("")
    node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
    if node.tag in _MERGED:
        raise _UnusualError
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise _UnusualError from error


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
