"""Untrusted zips: odd names, links, duplicates, bombs. Nothing is ever extracted to disk."""

import hashlib
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest

from afqmc.data.config import DatasetConfig, Source
from afqmc.data.download import fetch_zip
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]
ROWS = b"".join(b'{"sentence1": "a%d", "sentence2": "b", "label": "%d"}\n' % (n, n % 2) for n in range(50))
MIB = 1 << 20


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about duplicate names
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path, name="train.json"):
    with pytest.raises(InputError) as raised:
        DataFile.in_zip(path, name, DatasetConfig())
    return str(raised.value)


# Load a data set from a zip, and print every path opened for writing and every other change to the file system.
WATCHED = """
import os, sys
from afqmc.data.config import DatasetConfig, Source
from afqmc.data.loading import load_dataset
config = DatasetConfig(source=Source.files, path="d.zip", train_file="train.json", dev_file="dev.json")
written = []
def watch(event, arguments):
    if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.link", "os.symlink", "os.rename", "os.chmod", "os.truncate"):
        written.append(event)
sys.addaudithook(watch)
data = load_dataset(config)
print(len(data.train), len(data.dev), written)
"""


@pytest.mark.parametrize("prefix", ["../../evil/", "/", "C:/", "\\\\server\\a/"])
def test_nothing_is_extracted(tmp_path, prefix):
    """No file of a zip is written to disk, whatever its name."""
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    write(inner / "d.zip", [(prefix + "train.json", ROWS), (prefix + "dev.json", ROWS), ("../evil.txt", b"evil")])
    process = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED],
        cwd=inner,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.stdout.strip(), process.stderr) == ("50 50 []", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "d.zip"]


@pytest.mark.parametrize("name", ["..\\train.json", "C:\\data\\train.json"])
def test_backslashes(tmp_path, name):
    """A name with backslashes is not a path."""
    assert f"no train.json in it; it holds {name}" in refused(write(tmp_path / "d.zip", [(name, ROWS)]))


def test_control_characters(tmp_path):
    """Messages show names without their control characters."""
    path = write(tmp_path / "d.zip", [("\x1b[2Jdev.json", b""), ("\x1b[2J/train.json", ROWS)])
    assert "it holds \\x1b[2Jdev.json" in refused(path, "dev.json")
    assert DataFile.in_zip(path, "train.json", DatasetConfig()).name == f"{path}/\\x1b[2J/train.json"


def test_duplicate_member(tmp_path):
    """A duplicate file in a zip is rejected."""
    path = write(tmp_path / "d.zip", [("a/train.json", ROWS), ("b/dev.json", b""), ("a/train.json", b"other")])
    assert "a/train.json is in it twice" in refused(path)
    DataFile.in_zip(path, "dev.json", DatasetConfig())


def test_symbolic_link(tmp_path):
    """A symbolic link in a zip is rejected."""
    link = zipfile.ZipInfo("train.json")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert "train.json is a symbolic link" in refused(write(tmp_path / "d.zip", [(link, b"/etc/passwd")]))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_decompression_bomb(tmp_path, method):
    """A decompression bomb is rejected."""
    path = write(tmp_path / "d.zip", [("train.json", bytes(65 * MIB))], method)
    message = refused(path)
    assert "train.json would inflate from" in message
    assert f"to {65 * MIB} bytes" in message
    assert "dataset.path=DIR" in message


def patched(path, field, value):
    """Change a field of the first entry of the zip's directory, which is not checked against the member's header."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + {"compressed": 20, "size": 24}[field], value)
    path.write_bytes(content)
    return path


def test_bomb_with_false_packed_size(tmp_path):
    """A bomb that claims a large packed size is rejected."""
    path = write(tmp_path / "d.zip", [("train.json", bytes(65 * MIB))])
    assert "would inflate" in refused(patched(path, "compressed", 60 * MIB))


def test_bomb_with_false_size(tmp_path):
    """A bomb that claims a small size is read only up to that size."""
    path = patched(write(tmp_path / "d.zip", [("train.json", bytes(9 * MIB))]), "size", 1000)
    stream = DataFile.in_zip(path, "train.json", DatasetConfig()).open()
    with stream, pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        stream.read()


def test_checksum_memory(tmp_path):
    """A checksum is computed without loading the file into memory."""
    content = bytes(16 * MIB)
    write(tmp_path / "a.zip", [("train.json", content)])
    config = DatasetConfig(
        source=Source.url,
        url="http://127.0.0.1:9/a.zip",
        cache_dir=str(tmp_path),
        checksums={"train.json": hashlib.sha256(content).hexdigest()},
    )
    tracemalloc.start()
    try:
        assert fetch_zip(config) == tmp_path / "a.zip"
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


def test_cached_bomb(tmp_path):
    """A decompression bomb in the cache is rejected."""
    write(tmp_path / "a.zip", [("train.json", bytes(65 * MIB))])
    config = DatasetConfig(
        source=Source.url,
        url="http://127.0.0.1:9/a.zip",
        cache_dir=str(tmp_path),
        checksums={"train.json": "0" * 64},
    )
    with pytest.raises(InputError, match="no intact copy"):
        fetch_zip(config, fetch=False)
