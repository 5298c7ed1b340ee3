"""conf/ as it was when a sweep began: every job is composed from that copy, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement

from afqmc.config.resume import is_well_known
from afqmc.config.safe_yaml import literal_yaml
from afqmc.utils.errors import InputError, blamed_on
from afqmc.utils.safe_files import OBJECT, read_bytes, refuse_special

_COPY = ".conf"
_IMPORTED = ("_target_", "class", "()", "searchpath")  # keys whose values name code, or a directory of configs
_MARKS = ("ext://", "${oc.env", "_target_=")  # in texts: logging imports it, it reads the environment, an override


def frozen_loader(live: ConfigSearchPath, sweep: Path, begun: bool) -> tuple[ConfigLoaderImpl, bool]:
    """A loader of the copy in the sweep's directory, which is made anew until the sweep has begun.

    Returns:
        The loader, and whether the files have been changed since they were copied.
    """
    copy = sweep / _COPY
    if not (begun and copy.exists()):
        aside = sweep / f"{_COPY}.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for number, element in enumerate(live.get_path()):
            if source := _directory(element):
                for file in _files(source):
                    target = aside / str(number) / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        shutil.rmtree(copy, ignore_errors=True)
        aside.rename(copy)
    else:
        _refuse_foreign_code(live, copy)
    found, changed = ConfigSearchPathImpl(), False
    for number, element in enumerate(live.get_path()):
        source, kept = _directory(element), copy / str(number)
        if source and kept.is_dir():
            changed |= _fingerprint(source) != _fingerprint(kept)
            element = SearchPathElement(element.provider, f"file://{kept.absolute()}")
        found.get_path().append(element)
    return ConfigLoaderImpl(found), changed


def _refuse_foreign_code(live: ConfigSearchPath, copy: Path) -> None:
    """Check the copy as ``resume=`` checks a config: the directory may come from somebody else.

    Raises:
        InputError: for code, or a use of the environment, that neither conf/ nor a well-known library accounts for.
    """
    refuse_special(copy)
    now = [file for element in live.get_path() if (source := _directory(element)) for file in _files(source)]
    same = {read_bytes(file, OBJECT) for file in now}
    own = {name for file in now for name in _named_in(file, lenient=True)}
    for file in _files(copy):
        if read_bytes(file, OBJECT) in same:
            continue
        for name in _named_in(file):
            if name not in own and not is_well_known(name):
                raise InputError(
                    f"{file}: {name} is code from elsewhere, and not in conf/; to go on with conf/ as it is now: "
                    f"rm -r {copy}"
                )


def _named_in(file: Path, lenient: bool = False) -> Iterator[str]:
    try:
        with blamed_on(f"{file}: not readable YAML"):
            yield from _named(literal_yaml(file))
    except InputError:
        if not lenient:  # a user's own conf/ may have aliases and tags
            raise


def _named(node: Any) -> Iterator[str]:
    """What a config could have imported, or read from the environment."""
    if isinstance(node, dict):
        for key, value in node.items():
            if value is not None and str(key).rpartition(".")[2] in _IMPORTED:
                yield from map(str, value if isinstance(value, list) else [value])
            yield from _named(value)
    elif isinstance(node, list):
        for value in node:
            yield from _named(value)
    elif isinstance(node, str) and any(mark in node for mark in _MARKS):
        yield node


def _directory(element: SearchPathElement) -> Path | None:
    """Where the files of a search path lie; None for what is inside a Python package."""
    scheme, separator, rest = element.path.partition("://")
    place = Path(rest if separator else element.path)
    return place if scheme == "file" or not separator else None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.yaml") if path.is_file())


def _fingerprint(directory: Path) -> str:
    found = hashlib.sha256()
    for file in _files(directory):
        found.update(f"{file.relative_to(directory)}\0".encode("utf-8", "surrogateescape"))
        found.update(hashlib.sha256(read_bytes(file, OBJECT)).digest())
    return found.hexdigest()
