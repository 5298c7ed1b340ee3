"""Fetch a data set's zip once into a cache: tries, pauses, checksums, and only whole files under final names."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import os
import re
import secrets
import time
import urllib.error
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from afqmc.data.config import DatasetConfig
from afqmc.data.resumable_download import Transfer, cache_write_error
from afqmc.data.sources import UNREADABLE, find_member
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user
from afqmc.utils.proxies import through_proxy
from afqmc.utils.signals import handle_termination

_TRIES = 3  # in a row that bring nothing new
_NEWS = 1 << 16  # bytes
_PATIENCE_S = 60  # with a server that asks for more by Retry-After no try is made
_ABANDONED_S = 3600  # since the last byte: a download that lives waits for minutes at most
_WORTH_ANOTHER = (408, 416, 425, 429)  # of the errors that are not the server's own


def cache_dir(config: DatasetConfig) -> Path:
    """Where downloads and tokens are kept: the config's directory, ``$AFQMC_CACHE``, or ``~/.cache/afqmc``.

    Raises:
        InputError: when that is in a home directory which is not known here, as in a container under a bare user id.
    """
    found = expand_user(config.cache_dir or os.environ.get("AFQMC_CACHE") or "~/.cache/afqmc")
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
    target = cache_dir(config) / _name(config)
    if os.path.exists(target):  # Path.exists raises where the directory may not be searched
        if not (damage := _damage(target, config)):
            return target
        tqdm.write(f"{target}: {damage}" + ("; fetching it again" if fetch else ""))
    if not fetch:
        raise InputError(f"dataset.url={config.url}: not the official address, and no sound copy of it is in the cache")
    with handle_termination(), _part_of(target) as part:  # of several processes each has its own; the last to end wins
        _fetch(config, config.url, part)
        try:
            part.replace(target)
        except OSError as error:
            raise cache_write_error(target, error) from error
    return target


def _name(config: DatasetConfig) -> str:
    """Of the address, without what follows ``?``: that may be long, or secret."""
    assert config.url is not None
    name = Path(config.url.partition("?")[0]).name
    if not config.checksums:  # nothing else tells this zip from one of the same name at another address
        name = f"{Path(name).stem}-{hashlib.sha256(config.url.encode()).hexdigest()[:8]}{Path(name).suffix}"
    return name


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """A new file beside the target, gone at the end unless it was renamed."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        part.touch(exist_ok=False)
    except OSError as error:
        raise cache_write_error(part.parent, error) from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what killed processes left; none of it is gone on with, since nobody knows which version it is of."""
    for path in target.parent.iterdir():
        if path.name.startswith(f"{target.name}.") and path.suffix == ".part":
            with suppress(OSError):  # it is gone already, or another person's
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


def _fetch(config: DatasetConfig, url: str, part: Path) -> None:
    """Tries until the file is whole and sound, or nothing new comes any more."""
    transfer = Transfer(url, part)
    tries, fruitless, best = 0, 0, 0
    while True:
        tries += 1
        try:
            transfer.attempt()
            if not (damage := _damage(part, config)):
                return
            transfer.forget()
            raise OSError(damage)
        except (OSError, http.client.HTTPException) as error:
            fruitless = 0 if transfer.received >= best + _NEWS else fruitless + 1
            best = max(best, transfer.received)
            pause = _pause(error, fruitless)
            if pause is None or fruitless == _TRIES:
                raise _given_up(config, tries, error) from error
        time.sleep(pause)


def _pause(error: Exception, fruitless: int) -> float | None:
    """Seconds until the next try; None where asking again will not help."""
    pause = 2.0 ** max(fruitless - 1, 0)
    if not isinstance(error, urllib.error.HTTPError):
        return pause
    if error.code < 500 and error.code not in _WORTH_ANOTHER:
        return None
    asked = _retry_after(error)
    return None if asked > _PATIENCE_S else max(pause, asked)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that a server wants to be left alone for, given as a number or a date; 0 where it says nothing."""
    told = error.headers.get("Retry-After") or ""
    if re.fullmatch(r"[0-9]{1,9}", told):
        return float(told)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return 0.0


def _given_up(config: DatasetConfig, tries: int, last: Exception) -> InputError:
    told = str(last) or type(last).__name__
    if isinstance(last, urllib.error.HTTPError) and (wait := _retry_after(last)) > _PATIENCE_S:
        told += f", not before {wait:.0f} s from now"
    if not isinstance(last, urllib.error.HTTPError):
        told += through_proxy(config.url or "")
    return InputError(
        f"dataset {config.name}: could not download {config.url} ({tries} tries; last: {told}).\n"
        "  a copy on disk:  dataset.path=DIR_OR_ZIP\n"
        "  a mirror:        dataset.url=https://...\n"
        "  no network:      python -m afqmc.run experiment=quickstart"
    )


def _damage(archive: Path, config: DatasetConfig) -> str:
    """What is wrong with a zip, or nothing: each named file must be in it with its sha256."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, expected in (config.checksums or {}).items():
                member = find_member(opened, name)
                if member is None:
                    return f"has no {name}"
                with opened.open(member) as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
                if found != expected:
                    told = f"checksum of {name} is {found[:12]}.., {expected[:12]}.. was expected"
                    return f"{told} (dataset.checksums={{}} checks none)"
    except UNREADABLE as error:
        return f"not a readable zip ({error})"
    return ""
