"""The files that a command writes: refused where an input would be lost, then written whole or not at all."""

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
    """Check that a file may be written, before the work for it is done.

    Args:
        path: The file.
        key: The option that names it.
        run_dirs: The runs and sweeps that the command reads.
        inputs: Further files that it reads.

    Raises:
        InputError: naming the option, the path and what is in the way.
    """
    if not path.parent.is_dir():
        raise InputError(f"{key} {path}: there is no directory {path.parent}")
    if path.is_dir():
        raise InputError(f"{key} {path}: is a directory; a file to write is needed")
    run_dirs = list(run_dirs)
    for run_dir in run_dirs:
        RunDir(run_dir).ensure_inside(path, key)
    reject_input_as_output(path, key, [*inputs, *(file for run_dir in run_dirs for file in files_of(run_dir))])


def reject_input_as_output(path: Path, key: str, inputs: Iterable[Path]) -> None:
    """Refuse to replace a file that is, or lies in, one of the inputs; a device or a pipe is never replaced.

    The files themselves are compared: links, relative paths, the letter case of a file system and ``-`` for standard
    input do not matter.

    Raises:
        InputError: naming the option, the path and the input.
    """
    if not path.is_file():
        return
    real = Path(os.path.realpath(path))
    for read in inputs:
        is_input = real.is_relative_to(os.path.realpath(read)) if os.path.isdir(read) else _is_same(path, read)
        if is_input:
            kind = "a file of" if os.path.isdir(read) else "the same file as"
            raise InputError(f"{key} {path}: is {kind} the input {read}, which would be lost; name another file")


def _is_same(path: Path, read: Path) -> bool:
    with suppress(OSError):  # of an input that is not there, or standard input that is closed
        return os.path.samestat(os.stat(path), os.fstat(0) if str(read) == "-" else os.stat(read))
    return False


def files_of(run_dir: Path) -> Iterator[Path]:
    """What a run or sweep directory holds, and the data and model that its config names; files and directories."""
    yield from RunDir(run_dir).own_files()
    try:
        config = read_literal(RunDir(run_dir).config)
    except (InputError, OSError):  # whoever loads the run says what is wrong with it
        return
    yield from named_files(config)


def named_files(config: Mapping[str, Any]) -> Iterator[Path]:
    """The data files and the model directory that a config names by dotted keys."""
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
    """Write a whole file or none.

    Raises:
        InputError: when it cannot be written, naming the option.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise InputError(f"{key} {path}: cannot be written: {error.strerror}") from error
