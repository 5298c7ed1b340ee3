"""Typed settings with a range: the dataclass field says what is legal, one function holds every config to it."""

from __future__ import annotations

import math
from dataclasses import field, fields, is_dataclass
from typing import Any

from afqmc.errors import InputError

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def knob(default: Any, help: str, **bounds: float) -> Any:
    """A dataclass field with its meaning, and its bounds as ``gt``, ``ge``, ``lt`` or ``le``.

    ``None`` is always inside the bounds: whether a field may be None is said by its type.
    """
    assert bounds.keys() <= _SIGNS.keys(), bounds
    metadata = {"help": help, "bounds": bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def legal(bounds: dict[str, float]) -> str:
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
    """Hold every field of a (nested) config dataclass to its bounds.

    Raises:
        InputError: naming the flag, what was found, and the legal range.
    """
    for item in fields(config):
        value, key = getattr(config, item.name), prefix + item.name
        if is_dataclass(value):
            check_ranges(value, key + ".")
        bounds = item.metadata.get("bounds")
        if bounds and value is not None and not _inside(value, bounds):
            raise InputError(f"{key}={value}: must be {legal(bounds)} ({item.metadata['help']})")
