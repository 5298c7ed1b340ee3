"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """``~`` filled in; the home of somebody unknown here (``~nobody``) stays as typed, to be told as not there."""
    return Path(os.path.expanduser(path))


def is_utf8(path: str) -> bool:
    """Whether YAML and the libraries that save tokenizers take it: Python stands surrogates for any other bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)
