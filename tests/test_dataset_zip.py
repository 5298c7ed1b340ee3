"""Zips from strangers: odd names, links, twins, traps. Nothing in one is ever written to disk."""

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

ROOT = Path(__file__).parents[1]
ROWS = b"".join(b'{"sentence1": "a%d", "sentence2": "b", "label": "%d"}\n' % (n, n % 2) for n in range(50))
MIB = 1 << 20


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path, name="train.json"):
    with pytest.raises(InputError) as told:
        DataFile.in_zip(path, name, DatasetConfig())
    return str(told.value)


# loads a data set from a zip and prints what was opened for writing, made, linked or renamed meanwhile
WATCHED = """
import os, sys
from afqmc.data.config import DatasetConfig, Source
from afqmc.data.loading import load
config = DatasetConfig(source=Source.files, path="d.zip", train_file="train.json", dev_file="dev.json")
written = []
def watch(event, arguments):
    if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.link", "os.symlink", "os.rename", "os.chmod", "os.truncate"):
        written.append(event)
sys.addaudithook(watch)
data = load(config)
print(len(data.train), len(data.dev), written)
"""


@pytest.mark.parametrize("prefix", ["../../evil/", "/", "C:/", "\\\\server\\a/"])
def test_nothing_of_a_zip_is_written_whatever_its_names_say(tmp_path, prefix):
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    write(inner / "d.zip", [(prefix + "train.json", ROWS), (prefix + "dev.json", ROWS), ("../evil.txt", b"evil")])
    told = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED],
        cwd=inner,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.stdout.strip(), told.stderr) == ("50 50 []", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "d.zip"]


@pytest.mark.parametrize("name", ["..\\train.json", "C:\\data\\train.json"])
def test_a_name_with_backslashes_is_no_path(tmp_path, name):
    assert f"no train.json in it; it holds {name}" in refused(write(tmp_path / "d.zip", [(name, ROWS)]))


def test_names_are_told_without_their_control_characters(tmp_path):
    path = write(tmp_path / "d.zip", [("\x1b[2Jdev.json", b""), ("\x1b[2J/train.json", ROWS)])
    assert "it holds \\x1b[2Jdev.json" in refused(path, "dev.json")
    assert DataFile.in_zip(path, "train.json", DatasetConfig()).name == f"{path}/\\x1b[2J/train.json"


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = write(tmp_path / "d.zip", [("a/train.json", ROWS), ("b/dev.json", b""), ("a/train.json", b"other")])
    assert "a/train.json is in it twice" in refused(path)
    DataFile.in_zip(path, "dev.json", DatasetConfig())


def test_a_member_that_is_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("train.json")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert "train.json is a symbolic link" in refused(write(tmp_path / "d.zip", [(link, b"/etc/passwd")]))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_member_that_inflates_to_much_more_than_text_is_refused(tmp_path, method):
    path = write(tmp_path / "d.zip", [("train.json", bytes(65 * MIB))], method)
    told = refused(path)
    assert "train.json would inflate from" in told
    assert f"to {65 * MIB} bytes" in told
    assert "dataset.path=DIR" in told


def patched(path, field, value):
    """Change a number of the first entry of the zip's directory; nothing checks it against the member's own header."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + {"compressed": 20, "size": 24}[field], value)
    path.write_bytes(content)
    return path


def test_a_trap_that_claims_to_be_large_when_packed_is_refused(tmp_path):
    path = write(tmp_path / "d.zip", [("train.json", bytes(65 * MIB))])
    assert "would inflate" in refused(patched(path, "compressed", 60 * MIB))


def test_a_trap_that_claims_to_be_small_is_read_no_further_than_that(tmp_path):
    path = patched(write(tmp_path / "d.zip", [("train.json", bytes(9 * MIB))]), "size", 1000)
    stream = DataFile.in_zip(path, "train.json", DatasetConfig()).open()
    with stream, pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        stream.read()


def test_a_member_is_checked_without_holding_it_in_memory(tmp_path):
    content = bytes(16 * MIB)
    write(tmp_path / "a.zip", [("train.json", content)])
    config = DatasetConfig(
        source=Source.download,
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


def test_a_trap_in_the_cache_is_not_taken_for_the_data_set(tmp_path):
    write(tmp_path / "a.zip", [("train.json", bytes(65 * MIB))])
    config = DatasetConfig(
        source=Source.download,
        url="http://127.0.0.1:9/a.zip",
        cache_dir=str(tmp_path),
        checksums={"train.json": "0" * 64},
    )
    with pytest.raises(InputError, match="no intact copy"):
        fetch_zip(config, fetch=False)
