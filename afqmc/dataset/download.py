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

from afqmc.console import bar
from afqmc.dataset.config import DatasetConfig
from afqmc.dataset.files import UNREADABLE, find_member
from afqmc.errors import InputError
from afqmc.paths import expanded

_ATTEMPTS = 3
_TIMEOUT_S = 20
_CHUNK = 1 << 16


def cache_dir(config: DatasetConfig) -> Path:
    """Where downloads and tokens are kept: the config's directory, ``$AFQMC_CACHE``, or ``~/.cache/afqmc``.

    Raises:
        InputError: when that is in a home directory which is not known here, as in a container under a bare user id.
    """
    found = expanded(config.cache_dir or os.environ.get("AFQMC_CACHE") or "~/.cache/afqmc")
    if str(found).startswith("~"):
        raise InputError(f"dataset.cache_dir={found}: no such home directory here; name another, or set $AFQMC_CACHE")
    return found


def fetch_zip(config: DatasetConfig, fetch: bool = True) -> Path:
    """The path of the cached zip, downloaded first where it is not there and ``fetch`` allows it.

    Raises:
        InputError: saying what was tried, and the other ways to the same data.
    """
    if not config.url:
        raise InputError("dataset.url: is not set; source=download needs the address of a zip, or dataset.path a copy")
    target = cache_dir(config) / Path(config.url).name
    if not config.checksums:  # nothing else tells this zip from one of the same name at another address
        target = target.with_stem(f"{target.stem}-{hashlib.sha256(config.url.encode()).hexdigest()[:8]}")
    if os.path.exists(target):  # Path.exists raises where the directory may not be searched
        if not (damage := _damage(target, config)):
            return target
        tqdm.write(f"{target}: {damage}" + ("; fetching it again" if fetch else ""))
    if not fetch:
        raise InputError(f"dataset.url={config.url}: not the official address, and no sound copy of it is in the cache")
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise InputError(
            f"{partial.parent}: cannot keep downloads ({error.strerror}); "
            "dataset.cache_dir or $AFQMC_CACHE names a directory that can be written"
        ) from error
    errors: list[str] = []
    for attempt in range(_ATTEMPTS):
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
        except ValueError as error:
            raise InputError(
                f"dataset.url={config.url}: {error}; an address is https://HOST/FILE.zip, in ASCII (others as %XX)"
            ) from error
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
        with bar(total=size or None, unit="B", unit_scale=True, desc=f"download {Path(url).name}") as shown:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                shown.update(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if size and target.stat().st_size != size:
        raise OSError(f"cut off after {target.stat().st_size} of {size} bytes")


def _damage(archive: Path, config: DatasetConfig) -> str:
    """What is wrong with a zip, or nothing: each named file must be in it with its sha256."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, expected in (config.checksums or {}).items():
                member = find_member(opened.namelist(), name)
                if member is None:
                    return f"has no {name}"
                found = hashlib.sha256(opened.read(member)).hexdigest()
                if found != expected:
                    told = f"checksum of {name} is {found[:12]}.., {expected[:12]}.. was expected"
                    return f"{told} (dataset.checksums={{}} checks none)"
    except UNREADABLE as error:
        return f"not a readable zip ({error})"
    return ""
