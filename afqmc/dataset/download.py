"""Fetch a data set's zip once into a cache: progress, retries, checksums, and only whole files under final names."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from afqmc.dataset.config import DatasetConfig
from afqmc.errors import InputError

_ATTEMPTS = 3
_TIMEOUT_S = 20
_CHUNK = 1 << 16


def cache_dir(config: DatasetConfig) -> Path:
    """Where downloads are kept: the config's directory, ``$AFQMC_CACHE``, or ``~/.cache/afqmc``."""
    return Path(config.cache_dir or os.environ.get("AFQMC_CACHE") or Path.home() / ".cache" / "afqmc").expanduser()


def fetch_zip(config: DatasetConfig) -> Path:
    """The path of the cached zip, downloaded first where it is not there.

    Raises:
        InputError: saying what was tried, and the other ways to the same data.
    """
    assert config.url, "a data set to download has a url"
    target = cache_dir(config) / Path(config.url).name
    if target.exists() and not (damage := _damage(target, config)):
        return target
    if target.exists():
        tqdm.write(f"{target}: {damage}; fetching it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors: list[str] = []
    for attempt in range(_ATTEMPTS):
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            _download(config.url, partial)
            if damage := _damage(partial, config):
                raise OSError(damage)
            partial.replace(target)
            return target
        except (OSError, http.client.HTTPException) as error:
            errors.append(str(error))
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                break  # asking again will not help
        finally:
            partial.unlink(missing_ok=True)
        if attempt + 1 < _ATTEMPTS:
            time.sleep(2**attempt)
    raise InputError(
        f"dataset {config.name}: could not download {config.url} ({len(errors)} tries; last: {errors[-1]}).\n"
        "  a copy on disk:  dataset.path=DIR_OR_ZIP\n"
        "  a mirror:        dataset.url=https://...\n"
        "  no network:      python -m afqmc.run experiment=quickstart"
    )


def _download(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "afqmc"})  # noqa: S310  the address is the person's own
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, target.open("wb") as out:  # noqa: S310
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=f"download {Path(url).name}") as bar:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if size and target.stat().st_size != size:
        raise OSError(f"cut off after {target.stat().st_size} of {size} bytes")


def _damage(archive: Path, config: DatasetConfig) -> str:
    """What is wrong with a zip, or nothing: each named file must be in it with its sha256."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {Path(name).name: name for name in opened.namelist() if "__MACOSX" not in name}
            for name, expected in config.checksums.items():
                if name not in members:
                    return f"has no {name}"
                found = hashlib.sha256(opened.read(members[name])).hexdigest()
                if found != expected:
                    return f"checksum of {name} is {found[:12]}.., {expected[:12]}.. was expected"
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        return f"not a readable zip ({error})"
    return ""
