"""Embed data in the page. The texts may come from untrusted runs, so nothing in them may act as markup."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from afqmc.utils.errors import printable

_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def embed_json(value: Any) -> str:
    """Return JSON without characters that HTML interprets, and without control or bidirectional characters.

    Args:
        value: Plain data with finite numbers. Encode arrays with ``base64_array``.
    """
    text = json.dumps(_printable(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def base64_array(values: Any, dtype: str = "f4") -> str:
    """Return the little-endian bytes of an array in base64: exact, and shorter than decimal numbers.

    Args:
        values: An array of any shape; it is flattened row by row.
        dtype: numpy's name of the type: ``f4``, ``i4``, ``u2``.
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{dtype}").tobytes()).decode("ascii")


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value
