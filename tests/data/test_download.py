"""Download: the cache gets a complete, checked zip or nothing, and the error names other ways to get the data."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from file_server import Answer, FileServer, serving

from afqmc.config import compose
from afqmc.data.config import DatasetConfig, Source
from afqmc.data.download import cache_dir, fetch_zip
from afqmc.data.loading import load_dataset
from afqmc.utils.errors import InputError

ROWS = b"".join(b'{"sentence1": "a%d", "sentence2": "b", "label": "%d"}\n' % (n, n % 2) for n in range(50))
SHA256 = hashlib.sha256(ROWS).hexdigest()


def zipped(content=ROWS):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("data/train.json", "__MACOSX/train.json", "data/dev.json"):
            member = zipfile.ZipInfo(name)  # dated 1980 and not now, so that the bytes are always the same
            archive.writestr(member, b"junk" if "MACOSX" in name else content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


GOOD = Answer(zipped())
CUT = Answer(zipped(), sends=200)
OTHER = Answer(zipped(b"other"))
NO_ZIP = Answer(b"<html>log in first</html>")
GONE, BUSY = Answer(status=404), Answer(status=500)


@pytest.fixture
def server(monkeypatch):
    """Start a server, and record the pauses between tries instead of waiting."""
    monkeypatch.setenv("no_proxy", "*")
    server = FileServer()
    server.answers, server.pauses = [GOOD], []
    monkeypatch.setattr("time.sleep", server.pauses.append)
    with serving(server):
        yield server


@pytest.fixture
def config(server, tmp_path):
    return DatasetConfig(
        name="some",
        source=Source.url,
        url=f"{server.address}/some.zip",
        cache_dir=str(tmp_path / "cache"),
        checksums={"train.json": SHA256},
        train_file="train.json",
        dev_file="dev.json",
    )


def cached(config):
    return sorted(path.name for path in Path(config.cache_dir).iterdir())


def test_download_is_cached(server, config):
    """A zip is downloaded once and then read from the cache."""
    assert fetch_zip(config).read_bytes() == zipped()
    assert fetch_zip(config) == Path(config.cache_dir) / "some.zip"
    assert server.asked == 1
    assert cached(config) == ["some.zip"]


def test_downloaded_dataset_loads(config):
    """The splits are read from inside the downloaded zip."""
    result = load_dataset(config)
    assert (len(result.train), result.labels) == (50, ("0", "1"))
    assert result.train.file.endswith("some.zip/data/train.json")


@pytest.mark.parametrize("first", [BUSY, CUT, OTHER, NO_ZIP], ids=["busy", "cut", "other", "no_zip"])
def test_failed_try_is_repeated(server, config, first):
    """After a failed try comes another."""
    server.answers = [first, GOOD]
    assert fetch_zip(config).read_bytes() == zipped()
    assert (server.asked, server.pauses) == (2, [1])
    assert cached(config) == ["some.zip"]


@pytest.mark.parametrize(
    ("answer", "tries", "reason"),
    [
        (GONE, 1, "HTTP Error 404"),
        (BUSY, 3, "HTTP Error 500"),
        (CUT, 3, f"cut off after 200 of {len(zipped())} bytes|IncompleteRead"),
        (OTHER, 3, rf"checksum of train.json is \w{{12}}\.\., expected {SHA256[:12]}\.\."),
        (NO_ZIP, 3, "not a readable zip"),
    ],
    ids=["gone", "busy", "cut", "other", "no_zip"],
)
def test_failed_download(server, config, answer, tries, reason):
    """A failed download reports the reason and the alternatives, and leaves no file behind."""
    server.answers = [answer]
    with pytest.raises(InputError, match=rf"dataset some: could not download .*\({tries} tries; last: .*") as refused:
        fetch_zip(config)
    assert refused.match(reason)
    for way in ("dataset.path=DIR_OR_ZIP", "dataset.url=https://", "experiment=quickstart"):
        assert way in str(refused.value)
    assert (server.asked, server.pauses) == (tries, [1, 2][: tries - 1])
    assert cached(config) == []


def test_zip_lacks_a_file(config):
    """A zip without one of the expected files is rejected."""
    config.checksums["test.json"] = SHA256
    with pytest.raises(InputError, match="last: has no test.json"):
        fetch_zip(config)


@pytest.mark.parametrize("content", [b"", b"PK", zipped()[:-10], zipped(b"other")], ids=["empty", "pk", "cut", "other"])
def test_damaged_cached_zip(server, config, content):
    """A damaged zip in the cache is downloaded again."""
    Path(config.cache_dir).mkdir()
    (Path(config.cache_dir) / "some.zip").write_bytes(content)
    assert fetch_zip(config).read_bytes() == zipped()
    assert server.asked == 1


def test_damaged_cached_zip_is_not_deleted(server, config):
    """A damaged zip stays in the cache if the download fails."""
    server.answers = [GONE]
    Path(config.cache_dir).mkdir()
    (Path(config.cache_dir) / "some.zip").write_bytes(b"mine")
    with pytest.raises(InputError, match="404"):
        fetch_zip(config)
    assert cached(config) == ["some.zip"]


def test_cache_directory(monkeypatch, tmp_path):
    """The cache is dataset.cache_dir, else $AFQMC_CACHE, else ~/.cache/afqmc."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AFQMC_CACHE", raising=False)
    assert cache_dir(DatasetConfig()) == tmp_path / ".cache" / "afqmc"
    monkeypatch.setenv("AFQMC_CACHE", "/elsewhere")
    assert cache_dir(DatasetConfig()) == Path("/elsewhere")
    assert cache_dir(DatasetConfig(cache_dir="~/mine")) == tmp_path / "mine"


def test_damaged_compressed_bytes(config):
    """Damage in the compressed bytes of a cached zip is detected, and it is downloaded again."""
    Path(config.cache_dir).mkdir()
    content = bytearray(zipped())
    start = 30 + len("data/train.json")  # the local header
    content[start : start + 4] = b"\xff\xff\xff\xff"
    (Path(config.cache_dir) / "some.zip").write_bytes(content)
    assert fetch_zip(config).read_bytes() == zipped()


@pytest.mark.parametrize("url", ["mirror/some.zip", "http://127.0.0.1:9/数据.zip"])
def test_invalid_url(config, url):
    """An invalid address is rejected, and the message names its key."""
    config.url = url
    with pytest.raises(InputError, match=r"dataset\.url=.*https://HOST"):
        fetch_zip(config)


def test_cache_directory_cannot_be_created(config):
    """The error for a cache directory that cannot be created names its key."""
    Path(config.cache_dir).write_text("a file")
    with pytest.raises(InputError, match=r"cache: cannot store downloads .*dataset.cache_dir or \$AFQMC_CACHE"):
        fetch_zip(config)


def test_cache_without_checksums_depends_on_url(server, config):
    """Without checksums, a zip of the same name at another address is a different cache entry."""
    config.checksums = {}
    fetch_zip(config)
    config.url = config.url.replace("/some.zip", "/other/some.zip")
    for _ in range(2):
        fetch_zip(config)
    assert server.asked == 2


@pytest.mark.parametrize("checksums", [None, {}])
def test_no_checksums(server, config, checksums):
    """Without checksums any zip is accepted."""
    server.answers = [OTHER]
    config.checksums = checksums
    assert fetch_zip(config).read_bytes() == zipped(b"other")


def test_disable_checksums_on_command_line():
    """`dataset.checksums={}` disables the checksums."""
    assert compose(["dataset.checksums={}"]).dataset.checksums is None
    assert len(compose([]).dataset.checksums) == 3
