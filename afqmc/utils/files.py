"""files."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from afqmc.utils import safe_files


def write_text(path: Path, text: str) -> None:
    r"""A whole text; a byte of a file name that is no UTF-8 is written as ``\udcff``, which is how JSON spells it."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, then rename: a file under its final name is whole. A pipe or device is not replaced by a file.

    Raises:
        OSError: naming the path; what was written aside is removed.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(path)), content)  # a link stays one
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)  # a link of that name would be written through
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        found = safe_files.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON; numbers must be finite."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def nan_to_none(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for every number that JSON cannot say."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def expand_user(path: str) -> Path:
    """``~`` filled in; the home of somebody unknown here (``~nobody``) stays as typed, to be told as not there."""
    return Path(os.path.expanduser(path))


def is_utf8(path: str) -> bool:
    """Whether YAML and the libraries that save tokenizers take it: Python stands surrogates for any other bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)
