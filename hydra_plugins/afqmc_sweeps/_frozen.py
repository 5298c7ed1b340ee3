"""conf/ as it was when a sweep began: every job is composed from that copy, whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement

_COPY = ".conf"


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
    found, changed = ConfigSearchPathImpl(), False
    for number, element in enumerate(live.get_path()):
        source, kept = _directory(element), copy / str(number)
        if source and kept.is_dir():
            changed |= _fingerprint(source) != _fingerprint(kept)
            element = SearchPathElement(element.provider, f"file://{kept.absolute()}")
        found.get_path().append(element)
    return ConfigLoaderImpl(found), changed


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
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
