"""Config fields with help text and bounds, and the function that checks them."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

from afqmc.utils.errors import InputError, elide

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def config_field(default: Any, help: str, **bounds: float) -> Any:
    """Return a dataclass field with a help text, and bounds as ``gt``, ``ge``, ``lt`` or ``le``.

    Bounds do not apply to ``None``: the type says whether a field may be None.
    """
    assert bounds.keys() <= _SIGNS.keys(), bounds
    metadata = {"help": help, "bounds": bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def format_bounds(bounds: dict[str, float]) -> str:
    """Return ``{"gt": 0, "le": 10}`` as ``> 0 and <= 10``."""
    return " and ".join(f"{_SIGNS[name]} {limit}" for name, limit in bounds.items())


def _is_inside(value: float, bounds: dict[str, float]) -> bool:
    tests = {
        "gt": lambda limit: value > limit,
        "ge": lambda limit: value >= limit,
        "lt": lambda limit: value < limit,
        "le": lambda limit: value <= limit,
    }
    finite = isinstance(value, int) or math.isfinite(
        value
    )  # math.isfinite fails for an int that is too large for a float
    return finite and all(tests[name](limit) for name, limit in bounds.items())


def check_number(name: str, value: object, **bounds: float) -> float:
    """Return an argument as a float; bounds as in ``config_field``.

    Raises:
        ValueError: naming the argument, if it is not a finite number within the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_inside(value, bounds):
        raise ValueError(f"{name}={value}: must be {format_bounds(bounds)}")
    return float(value)


def check_ranges(config: Any, prefix: str = "") -> None:
    """Check every field of a nested config dataclass against its bounds, and that mappings and lists are such.

    Raises:
        InputError: naming the key, the value and the allowed range.
    """
    for item in fields(config):
        value, key = getattr(config, item.name), prefix + item.name
        if is_dataclass(value):
            check_ranges(value, key + ".")
        default = None if item.default_factory is MISSING else item.default_factory()
        # OmegaConf accepts the text of an interpolation, such as ${x}, for a mapping or list
        if isinstance(default, dict | list) and not isinstance(value, type(default) | None):
            raise InputError(f"{key}={value}: must be a {'mapping' if isinstance(default, dict) else 'list'}")
        bounds = item.metadata.get("bounds", {})
        if isinstance(value, int) and value > sys.maxsize:  # too large for any count or index
            bounds = {**bounds, "le": bounds.get("le", sys.maxsize)}
        if bounds and value is not None and not _is_inside(value, bounds):
            raise InputError(f"{key}={elide(str(value))}: must be {format_bounds(bounds)} ({item.metadata['help']})")
