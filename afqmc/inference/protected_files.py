"""Check that an output file overwrites no input, and write it atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from afqmc.config.safe_yaml import read_literal
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user, write_bytes


def check_output(path: Path, key: str, run_dirs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Check that an output file may be written. Called before the work for it starts.

    Args:
        path: The output file.
        key: The option that names it, for messages.
        run_dirs: The run and sweep directories that the command reads.
        inputs: Further files that it reads.

    Raises:
        InputError: with the option, the path and the reason.
    """
    if not path.parent.is_dir():
        raise InputError(f"{key} {path}: there is no directory {path.parent}")
    if path.is_dir():
        raise InputError(f"{key} {path}: is a directory; must be a file")
    run_dirs = list(run_dirs)
    for run_dir in run_dirs:
        RunDir(run_dir).ensure_inside(path, key)
    reject_input_as_output(path, key, [*inputs, *(file for run_dir in run_dirs for file in run_files(run_dir))])


def reject_input_as_output(path: Path, key: str, inputs: Iterable[Path]) -> None:
    """Check that an existing output file is none of the input files, and in none of the input directories.

    The files themselves are compared, so links, relative paths, letter case and ``-`` for standard input are resolved.
    Devices and pipes are allowed, since writing to them replaces nothing.

    Raises:
        InputError: with the option, the path and the input.
    """
    if not path.is_file():
        return
    real = Path(os.path.realpath(path))
    for source in inputs:
        is_directory = os.path.isdir(source)
        if real.is_relative_to(os.path.realpath(source)) if is_directory else _is_same_file(path, source):
            kind = "a file of" if is_directory else "the same file as"
            raise InputError(f"{key} {path}: is {kind} the input {source}, which would be lost; name another file")


def _is_same_file(path: Path, source: Path) -> bool:
    with suppress(OSError):  # the input does not exist, or standard input is closed
        return os.path.samestat(os.stat(path), os.fstat(0) if str(source) == "-" else os.stat(source))
    return False


def run_files(run_dir: Path) -> Iterator[Path]:
    """Yield the files of a run or sweep directory, and the data files and model directory that its config names."""
    yield from RunDir(run_dir).own_files()
    try:
        config = read_literal(RunDir(run_dir).config)
    except (InputError, OSError):  # reported when the run is loaded
        return
    yield from named_files(config)


def named_files(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the existing data files and the model directory of a flat config with dotted keys."""
    base = config.get("dataset.path")
    if isinstance(base, str) and os.path.isfile(expand_user(base)):
        yield expand_user(base)
    for split in ("train", "dev", "test"):
        name = config.get(f"dataset.{split}_file")
        if isinstance(name, str):
            yield expand_user(base if isinstance(base, str) else ".") / expand_user(name)
    model = config.get("model.name_or_path")
    if isinstance(model, str) and os.path.isdir(expand_user(model)):
        yield expand_user(model)


def write_output(path: Path, key: str, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        InputError: with the option, if the file cannot be written.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise InputError(f"{key} {path}: cannot be written: {error.strerror}") from error
