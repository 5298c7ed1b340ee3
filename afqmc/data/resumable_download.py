"""One file from an address into a local one, in as many tries as it takes: each goes on where the last was cut off."""

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

_TIMEOUT_S = 20  # without a single byte
_WINDOW_S, _LEAST = 60, 60 << 10  # a line slower than 1 KiB/s is cut off, and tried again
_CHUNK = 1 << 16


class Transfer:
    """A download whose tries share one local file.

    What a try leaves behind is used by the next one only where the server names the version it is of (ETag, else
    Last-Modified), and answers with that version from that byte on. All else starts at the first byte again.

    Args:
        url: http, https, ftp or file.
        part: The local file; it exists, and is this transfer's own.
    """

    def __init__(self, url: str, part: Path) -> None:
        self.url, self.part = url, part
        self._version: str | None = None
        self._total: int | None = None

    @property
    def received(self) -> int:
        """Bytes that the next try need not ask for."""
        return self.part.stat().st_size if self._version else 0

    def forget(self) -> None:
        """Let the next try start at the first byte."""
        self._version = self._total = None

    def attempt(self) -> None:
        """One try; afterwards the file is whole, as far as the server says how long it is.

        Raises:
            OSError, http.client.HTTPException: which another try may mend.
            InputError: for an address that is none, or a disk that takes no more.
        """
        start = self.received
        asked = {"Range": f"bytes={start}-", "If-Range": self._version} if start and self._version else {}
        with self._answer(asked) as response:
            self._receive(response, self._first_byte(response, start))
        size = self.part.stat().st_size
        if self._total is not None and size != self._total:
            raise OSError(f"cut off after {size} of {self._total} bytes")

    def _answer(self, headers: dict[str, str]) -> Any:
        try:
            request = urllib.request.Request(self.url, headers={"User-Agent": "afqmc", **headers})  # noqa: S310
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310  the address is the person's own
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.forget()
            raise
        except (ValueError, http.client.InvalidURL) as error:
            raise InputError(
                f"dataset.url={self.url}: {error}{through_proxy(self.url)}; "
                "an address is https://HOST/FILE.zip, in ASCII (others as %XX)"
            ) from error

    def _first_byte(self, response: Any, asked: int) -> int:
        """Where in the file the answer begins: 0 also where the server ignores ranges or has another version by now."""
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            self._version, self._total = _version_of(response), getattr(response, "length", None)
            return 0
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range") or "")
        same = _version_of(response) in (None, self._version)  # some servers answer ranges and ignore If-Range
        if not found or int(found[1]) != asked or not same or (self._total and found[2] not in ("*", str(self._total))):
            self.forget()
            raise OSError(f"the file changed while it was downloaded, after {asked} bytes")
        return asked

    def _receive(self, response: Any, start: int) -> None:
        name = f"download {Path(self.url.partition('?')[0]).name}"
        with (
            self.part.open("r+b", buffering=0) as out,
            bar(total=self._total, initial=start, unit="B", unit_scale=True, desc=name) as shown,
        ):
            out.seek(start)
            out.truncate()
            since, before = time.monotonic(), start
            while chunk := response.read1(_CHUNK):
                self._keep(out, chunk)
                shown.update(len(chunk))
                if time.monotonic() - since > _WINDOW_S:
                    if (news := out.tell() - before) < _LEAST:
                        raise TimeoutError(f"{news} bytes in {_WINDOW_S} s")
                    since, before = time.monotonic(), out.tell()
            os.fsync(out.fileno())

    def _keep(self, out: io.FileIO, chunk: bytes) -> None:
        left = memoryview(chunk)
        try:
            while left:
                left = left[out.write(left) :]  # a disk that is nearly full takes some of it
        except OSError as error:
            raise cache_write_error(self.part.parent, error) from error


def cache_write_error(directory: Path, error: OSError) -> InputError:
    """For a directory of downloads that is not to be written, or full."""
    return InputError(
        f"{directory}: cannot keep downloads ({error.strerror}); "
        "dataset.cache_dir or $AFQMC_CACHE names a directory that can be written and has room"
    )


def _version_of(response: Any) -> str | None:
    """What ``If-Range`` may name: a strong ETag, or a date where there is no ETag at all.

    A date is coarse: two versions of one second look alike. The zip's own checksums find what was mixed so.
    """
    tag: str | None = response.headers.get("ETag")
    if tag is None:
        date: str | None = response.headers.get("Last-Modified")
        return date
    return None if tag.startswith("W/") else tag
