"""Download a data set's zip into the cache, with retries and checksums; incomplete files never get the final name."""

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
from afqmc.data.sources import READ_ERRORS, find_member
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user
from afqmc.utils.language import translate
from afqmc.utils.proxies import through_proxy
from afqmc.utils.signals import handle_termination

_MAX_TRIES = 3  # in a row without progress
_MIN_PROGRESS_BYTES = 1 << 16  # per try
_MAX_RETRY_AFTER_S = 60  # give up if the server asks for a longer pause
_ABANDONED_S = 3600  # age of a partial file that no process writes any more; a live download pauses for minutes at most
_RETRYABLE_STATUS = (408, 416, 425, 429)  # besides the server errors, 500 and above


def cache_dir(config: DatasetConfig) -> Path:
    """Return the directory for downloads and tokens: ``cache_dir``, ``$AFQMC_CACHE``, or ``~/.cache/afqmc``.

    Raises:
        InputError: if the home directory is unknown, as in a container with a numeric user id.
    """
    directory = expand_user(config.cache_dir or os.environ.get("AFQMC_CACHE") or "~/.cache/afqmc")
    if str(directory).startswith("~"):
        raise InputError(
            f"dataset.cache_dir={directory}: no such home directory; name another directory, or set $AFQMC_CACHE"
        )
    return directory


def fetch_zip(config: DatasetConfig, fetch: bool = True) -> Path:
    """Return the path of the cached zip, downloading it if it is missing or damaged and ``fetch`` allows that.

    Raises:
        InputError: with the last error, and other ways to get the data.
    """
    if not config.url:
        raise InputError("dataset.url: is not set; source=url needs the address of a zip, or dataset.path a copy")
    target = cache_dir(config) / _name(config)
    if os.path.exists(target):  # Path.exists raises PermissionError for an unsearchable directory
        if not (damage := _integrity_error(target, config)):
            return target
        tqdm.write(translate(f"{target}: {damage}" + ("; downloading it again" if fetch else "")))
    if not fetch:
        raise InputError(f"dataset.url={config.url}: not the official address, and the cache has no intact copy of it")
    # Concurrent processes write different partial files; the last to finish replaces the target.
    with handle_termination(), _partial_file(target) as part:
        _download(config, config.url, part)
        try:
            part.replace(target)
        except OSError as error:
            raise cache_write_error(target, error) from error
    return target


def _name(config: DatasetConfig) -> str:
    """Return the file name in the cache: the last part of the URL without its query, which may be long or secret."""
    assert config.url is not None
    name = Path(config.url.partition("?")[0]).name
    if not config.checksums:  # otherwise a zip of the same name at another address would be taken for this one
        name = f"{Path(name).stem}-{hashlib.sha256(config.url.encode()).hexdigest()[:8]}{Path(name).suffix}"
    return name


@contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    """Create a partial file beside the target, and remove it at the end unless it was renamed."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        part.touch(exist_ok=False)
    except OSError as error:
        raise cache_write_error(part.parent, error) from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Remove partial files of killed processes. They cannot be resumed, since their version is not recorded."""
    for path in target.parent.iterdir():
        if path.name.startswith(f"{target.name}.") and path.suffix == ".part":
            with suppress(OSError):  # already removed, or owned by another user
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


def _download(config: DatasetConfig, url: str, part: Path) -> None:
    """Try until the file is complete and intact, or ``_MAX_TRIES`` tries in a row make no progress."""
    transfer = Transfer(url, part)
    tries, failures, received = 0, 0, 0  # failures: tries in a row without progress
    while True:
        tries += 1
        try:
            transfer.attempt()
            if not (damage := _integrity_error(part, config)):
                return
            transfer.restart()
            raise OSError(damage)
        except (OSError, http.client.HTTPException) as error:
            failures = 0 if transfer.received >= received + _MIN_PROGRESS_BYTES else failures + 1
            received = max(received, transfer.received)
            pause = _pause(error, failures)
            if pause is None or failures == _MAX_TRIES:
                raise _download_error(config, tries, error) from error
        time.sleep(pause)


def _pause(error: Exception, failures: int) -> float | None:
    """Return the seconds until the next try (exponential backoff), or None if retrying cannot help."""
    pause = 2.0 ** max(failures - 1, 0)
    if not isinstance(error, urllib.error.HTTPError):
        return pause
    if error.code < 500 and error.code not in _RETRYABLE_STATUS:
        return None
    retry_after = _retry_after(error)
    return None if retry_after > _MAX_RETRY_AFTER_S else max(pause, retry_after)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the Retry-After header in seconds, whether it is a number or a date; 0 without one."""
    header = error.headers.get("Retry-After") or ""
    if re.fullmatch(r"[0-9]{1,9}", header):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _download_error(config: DatasetConfig, tries: int, last: Exception) -> InputError:
    reason = str(last) or type(last).__name__
    if isinstance(last, urllib.error.HTTPError) and (wait := _retry_after(last)) > _MAX_RETRY_AFTER_S:
        reason += f", retry after {wait:.0f} s"
    if not isinstance(last, urllib.error.HTTPError):
        reason += through_proxy(config.url or "")
    return InputError(
        f"dataset {config.name}: could not download {config.url} ({tries} tries; last: {reason}).\n"
        "  a copy on disk:  dataset.path=DIR_OR_ZIP\n"
        "  a mirror:        dataset.url=https://...\n"
        "  no network:      python -m afqmc.run experiment=quickstart"
    )


def _integrity_error(archive: Path, config: DatasetConfig) -> str:
    """Return what is wrong with a zip, or '': each file in ``dataset.checksums`` must be in it with that sha256."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, expected in (config.checksums or {}).items():
                member = find_member(opened, name)
                if member is None:
                    return f"has no {name}"
                with opened.open(member) as stream:
                    actual = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
                if actual != expected:
                    return (
                        f"checksum of {name} is {actual[:12]}.., expected {expected[:12]}.. "
                        "(dataset.checksums={} disables the check)"
                    )
    except READ_ERRORS as error:
        return f"not a readable zip ({error})"
    return ""
