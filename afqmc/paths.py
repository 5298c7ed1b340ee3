"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """``~`` filled in; the home of somebody unknown here (``~nobody``) stays as typed, to be told as not there."""
    return Path(os.path.expanduser(path))
