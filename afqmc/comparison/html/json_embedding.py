"""Data put into the page, so that nothing in it can be taken for markup: texts may be a stranger's."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from afqmc.utils.errors import printable

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def as_json(value: Any) -> str:
    """JSON without a sign that HTML gives a meaning to, and without one that steers a reader's eye.

    Args:
        value: Plain data of finite numbers; arrays as ``packed`` gives them.
    """
    return json.dumps(_shown(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def packed(values: Any, kind: str = "f4") -> str:
    """Numbers as base64 of their little-endian bytes: exact, and shorter than their digits.

    Args:
        values: One dimension or more, row by row.
        kind: numpy's name of the type: ``f4``, ``i4``, ``u1``.
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): _shown(member) for key, member in value.items()}
    return [_shown(member) for member in value] if isinstance(value, list | tuple) else value
