"""Download one file in several tries, each resuming where the last one stopped."""

from __future__ import annotations

import http.client
import io
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from afqmc.utils.console import bar
from afqmc.utils.errors import InputError
from afqmc.utils.proxies import through_proxy

_TIMEOUT_S = 20  # without any data
_WINDOW_S, _MIN_BYTES_PER_WINDOW = 60, 60 << 10  # below 1 KiB/s the connection is closed, to try again
_CHUNK = 1 << 16  # bytes


class Transfer:
    """A download whose tries share one local file.

    A try resumes at the end of the last one only if the server identifies the file's version (ETag, else
    Last-Modified) and sends the rest of the same version. Otherwise it starts at the first byte.

    Args:
        url: Address with the scheme http, https, ftp or file.
        part: The local file. It exists, and no other process writes it.
    """

    def __init__(self, url: str, part: Path) -> None:
        self.url, self.part = url, part
        self._version: str | None = None
        self._total: int | None = None

    @property
    def received(self) -> int:
        """Number of bytes from which the next try resumes."""
        return self.part.stat().st_size if self._version else 0

    def restart(self) -> None:
        """Let the next try start at the first byte."""
        self._version = self._total = None

    def attempt(self) -> None:
        """Try once. Afterwards the file has the length that the server announced, if it did.

        Raises:
            OSError, http.client.HTTPException: for an error that another try may avoid.
            InputError: for an invalid address, or a cache directory that cannot be written.
        """
        start = self.received
        headers = {"Range": f"bytes={start}-", "If-Range": self._version} if start and self._version else {}
        with self._open(headers) as response:
            self._receive(response, self._first_byte(response, start))
        size = self.part.stat().st_size
        if self._total is not None and size != self._total:
            raise OSError(f"cut off after {size} of {self._total} bytes")

    def _open(self, headers: dict[str, str]) -> Any:
        try:
            request = urllib.request.Request(self.url, headers={"User-Agent": "afqmc", **headers})  # noqa: S310
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310  the user chose the address
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.restart()
            raise
        except (ValueError, http.client.InvalidURL) as error:
            raise InputError(
                f"dataset.url={self.url}: {error}{through_proxy(self.url)}; "
                "an address is https://HOST/FILE.zip, in ASCII (others as %XX)"
            ) from error

    def _first_byte(self, response: Any, requested: int) -> int:
        """Return the offset of the response in the file: 0 if the server ignores ranges or has a new version."""
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            self._version, self._total = _version_of(response), getattr(response, "length", None)
            return 0
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range") or "")
        is_same = _version_of(response) in (None, self._version)  # some servers support ranges but ignore If-Range
        other_total = match and self._total and match[2] not in ("*", str(self._total))
        if not match or int(match[1]) != requested or not is_same or other_total:
            self.restart()
            raise OSError(f"the file changed during the download, after {requested} bytes")
        return requested

    def _receive(self, response: Any, start: int) -> None:
        name = f"download {Path(self.url.partition('?')[0]).name}"
        with (
            self.part.open("r+b", buffering=0) as out,
            bar(total=self._total, initial=start, unit="B", unit_scale=True, desc=name) as progress,
        ):
            out.seek(start)
            out.truncate()
            window_start, window_offset = time.monotonic(), start
            while chunk := response.read1(_CHUNK):
                self._write(out, chunk)
                progress.update(len(chunk))
                if time.monotonic() - window_start > _WINDOW_S:
                    if (received := out.tell() - window_offset) < _MIN_BYTES_PER_WINDOW:
                        raise TimeoutError(f"{received} bytes in {_WINDOW_S} s")
                    window_start, window_offset = time.monotonic(), out.tell()
            os.fsync(out.fileno())

    def _write(self, out: io.FileIO, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[out.write(rest) :]  # an unbuffered write may be partial when the disk is nearly full
        except OSError as error:
            raise cache_write_error(self.part.parent, error) from error


def cache_write_error(directory: Path, error: OSError) -> InputError:
    """Return the error for a cache directory that is not writable or is full."""
    return InputError(
        f"{directory}: cannot store downloads ({error.strerror}); "
        "set dataset.cache_dir or $AFQMC_CACHE to a writable directory with free space"
    )


def _version_of(response: Any) -> str | None:
    """Return the version for ``If-Range``: a strong ETag or, without any ETag, the date of the last change.

    Two versions of the same second have the same date. The checksums in the zip reveal a mixture of both.
    """
    tag: str | None = response.headers.get("ETag")
    if tag is None:
        date: str | None = response.headers.get("Last-Modified")
        return date
    return None if tag.startswith("W/") else tag
