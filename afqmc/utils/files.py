"""Atomic writes, JSON files and user paths."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from afqmc.utils import safe_files


def write_text(path: Path, text: str) -> None:
    r"""Write a text atomically. Undecodable bytes of file names are written as ``\udcff``, which is valid in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file, which is then renamed. Pipes and devices are written directly.

    Raises:
        OSError: naming the path; the temporary file is removed.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(path)), content)  # keeps a symbolic link, and replaces its target
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # it might be a link to another file
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if the file is missing or invalid."""
    try:
        content = safe_files.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as indented JSON. All numbers must be finite."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def nan_to_none(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with None in place of NaN and infinity, which JSON does not have."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def expand_user(path: str) -> Path:
    """Expand ``~`` and ``~user``. An unknown user stays as typed, so that the path is then reported as missing."""
    return Path(os.path.expanduser(path))


def is_utf8(path: str) -> bool:
    """Return whether a path is valid UTF-8, as YAML and the tokenizers library require.

    Python represents other bytes in file names by surrogates.
    """
    return not any("\ud800" <= char <= "\udfff" for char in path)
