"""Open a data file, decompress it, and recognise content that is not text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from shutil import copyfileobj
from typing import IO, Any, cast

from afqmc.data.sources import LFS, DataFile
from afqmc.utils.errors import InputError
from afqmc.utils.git_lfs import is_lfs_pointer

LONGEST = 64 << 20  # maximum bytes per line and characters per CSV cell; no sentence pair is longer
_TOO_LONG = f"has a line of more than {LONGEST >> 20} MiB, the maximum"
EXTRA = "pip install 'afqmc[tables]'"

_BZIP2 = [b"BZh%d1AY&SY" % level for level in range(1, 10)]  # `BZh` alone could begin a text

_FORMATS = {  # first bytes of files that are neither text nor compressed text
    b"PK\x03\x04": "is a zip or an Excel file, not text; .xlsx is read by that suffix (or dataset.format=xlsx), "
    "a zip is named by dataset.path",
    b"\xd0\xcf\x11\xe0": "is an old or password-protected Excel file; save the table as .xlsx or CSV",
    b"PAR1\x15": "is Parquet, not text; it is read by the suffix .parquet, or dataset.format=parquet",
    b"ARROW1\0\0": "is an Arrow (Feather) file; write it as Parquet, JSON lines or CSV",
    b"7z\xbc\xaf\x27\x1c": "is compressed by 7-Zip; unpack it",
    b"Rar!\x1a\x07": "is compressed by RAR; unpack it",
    b"\x04\x22\x4d\x18": "is compressed by LZ4; unpack it: lz4 -d",
    b"\x1f\x9d": "is compressed by compress; unpack it: uncompress",
    b"\x1f\x8b": "is compressed by gzip twice; unpack it: gunzip",
    **dict.fromkeys(_BZIP2, "is compressed by bzip2 twice; unpack it: bunzip2"),
    b"\xfd7zXZ\0": "is compressed by xz twice; unpack it: unxz",
    b"\x28\xb5\x2f\xfd": "is compressed by Zstandard twice; unpack it: unzstd",
}


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    try:
        from backports import zstd  # `compression.zstd` of Python 3.14
    except ImportError as error:
        raise InputError(f"is compressed by Zstandard, which needs backports.zstd; {EXTRA}") from error
    return cast(IO[bytes], zstd.ZstdFile(stream))


_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    **dict.fromkeys(_BZIP2, bz2.BZ2File),
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """Return a stream that decompresses gzip, bzip2, xz or Zstandard, recognised by the first bytes, else the same."""
    start = beginning(stream)
    for magic, opener in _COMPRESSED.items():
        if start.startswith(magic):
            return io.BufferedReader(opener(stream), 1 << 16)
    return stream


def beginning(stream: IO[bytes]) -> bytes:
    """Return the first bytes of a stream without consuming them."""
    return cast(io.BufferedReader, stream).peek(512)[:512]


@contextmanager
def _opened(file: DataFile) -> Iterator[IO[bytes]]:
    """Open the decompressed content of a file, and close everything at the end."""
    with ExitStack() as stack:
        stream = stack.enter_context(file.open())
        if not hasattr(stream, "peek"):
            stream = stack.enter_context(io.BufferedReader(cast(io.RawIOBase, stream)))
        content = stack.enter_context(decompressed(stream))
        if is_lfs_pointer(beginning(content)):
            raise InputError(LFS)
        yield content


@contextmanager
def _named(file: DataFile) -> Iterator[None]:
    """Convert exceptions into an InputError that begins with the file's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error
    except Exception as error:  # decompressors raise many types on a damaged file
        raise InputError(f"{file.name}: cannot be read ({error})") from error


def first_bytes(file: DataFile) -> bytes:
    """Return the first bytes of the decompressed content."""
    with _named(file), _opened(file) as stream:
        return beginning(stream)


def raw_lines(file: DataFile, skipped: int = 0) -> Iterator[bytes]:
    r"""Yield the lines of a file as bytes with their ``\n``, after the first ``skipped`` bytes.

    Raises:
        InputError: if it cannot be read, or a line is longer than ``LONGEST``.
    """
    with _named(file), _opened(file) as stream:
        stream.read(skipped)
        longest = LONGEST
        for raw in iter(partial(stream.readline, longest), b""):
            if len(raw) == longest:
                raise InputError(_TOO_LONG)
            yield raw


def text_stream(file: DataFile, encoding: str) -> Iterator[str]:
    """Yield the lines of a file whose line breaks are not single bytes, such as UTF-16."""
    with _named(file), _opened(file) as stream:
        reader, line = io.TextIOWrapper(cast(io.BufferedReader, stream), encoding, newline="\n"), 0
        try:
            for line, text in enumerate(iter(partial(reader.readline, LONGEST), ""), 1):  # noqa: B007  used by `except`
                if len(text) == LONGEST:
                    raise InputError(_TOO_LONG)
                yield text
        except UnicodeDecodeError as error:
            raise InputError(f"cannot be read as {encoding} soon after line {line} ({error.reason})") from error


@contextmanager
def seekable(file: DataFile) -> Iterator[IO[bytes]]:
    """Open the decompressed content for random access, through a temporary file if it is compressed."""
    with ExitStack() as stack:
        with _named(file):
            content = stack.enter_context(_opened(file))
            is_plain = content.seekable() and isinstance(getattr(content, "raw", None), io.FileIO | io.BytesIO)
            if not is_plain:
                copy = stack.enter_context(tempfile.TemporaryFile())
                copyfileobj(content, copy)
                copy.seek(0)
                content = cast(IO[bytes], copy)
        yield content


def unreadable(start: bytes) -> str:
    """Return the message for a file that begins with these bytes; empty if it may be text."""
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it, and name the file inside"
    return next((text for magic, text in _FORMATS.items() if start.startswith(magic)), "")
