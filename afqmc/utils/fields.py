"""Typed settings with a range: the dataclass field says what is legal, one function holds every config to it."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

from afqmc.utils.errors import InputError, elide

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def config_field(default: Any, help: str, **bounds: float) -> Any:
    """A dataclass field with its meaning, and its bounds as ``gt``, ``ge``, ``lt`` or ``le``.

    ``None`` is always inside the bounds: whether a field may be None is said by its type.
    """
    assert bounds.keys() <= _SIGNS.keys(), bounds
    metadata = {"help": help, "bounds": bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def format_bounds(bounds: dict[str, float]) -> str:
    """``{"gt": 0, "le": 10}`` as ``> 0 and <= 10``."""
    return " and ".join(f"{_SIGNS[name]} {limit}" for name, limit in bounds.items())


def _inside(value: float, bounds: dict[str, float]) -> bool:
    tests = {
        "gt": lambda limit: value > limit,
        "ge": lambda limit: value >= limit,
        "lt": lambda limit: value < limit,
        "le": lambda limit: value <= limit,
    }
    finite = isinstance(value, int) or math.isfinite(value)  # an int may be too large for a float
    return finite and all(tests[name](limit) for name, limit in bounds.items())


def check_ranges(config: Any, prefix: str = "") -> None:
    """Hold every field of a (nested) config dataclass to its bounds, and mappings and lists to being such.

    Raises:
        InputError: naming the flag, what was found, and the legal range.
    """
    for item in fields(config):
        value, key = getattr(config, item.name), prefix + item.name
        if is_dataclass(value):
            check_ranges(value, key + ".")
        whole = None if item.default_factory is MISSING else item.default_factory()
        if isinstance(whole, dict | list) and not isinstance(value, type(whole) | None):  # a literal ${x} comes so far
            raise InputError(f"{key}={value}: must be a {'mapping' if isinstance(whole, dict) else 'list'}")
        bounds = item.metadata.get("bounds", {})
        if isinstance(value, int) and value > sys.maxsize:  # no count, no index and no array goes so far
            bounds = {**bounds, "le": bounds.get("le", sys.maxsize)}
        if bounds and value is not None and not _inside(value, bounds):
            raise InputError(f"{key}={elide(str(value))}: must be {format_bounds(bounds)} ({item.metadata['help']})")
