"""Downloads that are cut off, rejected, stalled, interrupted or concurrent, and full disks."""

import io
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from email.utils import formatdate
from pathlib import Path

import pytest
from file_server import Answer, FileServer, serving
from helpers import PATIENCE_S

from afqmc.data import download
from afqmc.data import resumable_download as transfer
from afqmc.data.config import DatasetConfig, Source
from afqmc.data.download import fetch_zip
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]
MANY = 100_000  # bytes; enough to count as progress


def zipped(size, seed=1):
    """Return a zip of incompressible bytes that depend only on the arguments."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("train.json"), random.Random(seed).randbytes(size))
    return stream.getvalue()


WHOLE = zipped(3 * MANY)
TAG, DATE = {"ETag": '"one"'}, {"Last-Modified": "Wed, 04 Nov 2026 08:00:00 GMT"}


def cut(at=MANY, headers=TAG, **more):
    return Answer(WHOLE, headers=headers, sends=at, ranges=True, **more)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving(FileServer()) as server:
        yield server


@pytest.fixture
def pauses(monkeypatch):
    """Record the pauses between tries instead of waiting."""
    noted = []
    monkeypatch.setattr("time.sleep", noted.append)
    return noted


@pytest.fixture
def config(server, tmp_path):
    return DatasetConfig(source=Source.url, url=f"{server.address}/a.zip", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def target(config):
    """Return the path in the cache; without checksums its name has a hash of the address."""
    return Path(config.cache_dir) / download._name(config)


def left(config):
    return sorted(path.name for path in Path(config.cache_dir).iterdir())


def ranges(server):
    return [request.get("Range") for request in server.requests]


@pytest.mark.parametrize("headers", [TAG, DATE, {**TAG, **DATE}], ids=["tag", "date", "both"])
def test_download_resumes(server, config, pauses, headers):
    """A download that was cut off resumes where it stopped."""
    server.answers = [cut(headers=headers), Answer(WHOLE, headers=headers, ranges=True)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, f"bytes={MANY}-"]
    assert server.requests[1]["If-Range"] == next(iter(headers.values()))
    assert server.sent == len(WHOLE)


def test_chunked_download_resumes(server, config, pauses):
    """A chunked download that was cut off resumes as well."""
    server.answers = [cut(chunked=True), Answer(WHOLE, headers=TAG, ranges=True, chunked=True)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, f"bytes={MANY}-"]


@pytest.mark.parametrize(
    "headers", [{}, {"ETag": 'W/"one"'}, {"ETag": 'W/"one"', **DATE}], ids=["none", "weak", "both"]
)
def test_restart_without_version(server, config, pauses, headers):
    """The download restarts if the server does not identify the version."""
    server.answers = [cut(headers=headers), Answer(WHOLE, headers=headers, ranges=True)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, None]


@pytest.mark.parametrize("headers", [TAG, {"ETag": '"two"'}], ids=["no ranges", "another version"])
def test_restart_without_ranges(server, config, pauses, headers):
    """The download restarts if the server sends the full file."""
    other = zipped(2 * MANY + 5, seed=2)  # shorter than announced, longer than what was received
    server.answers = [cut(), Answer(other, headers=headers)]
    assert fetch_zip(config).read_bytes() == other
    assert ranges(server) == [None, f"bytes={MANY}-"]


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"two"', "Content-Range": f"bytes {MANY}-{len(WHOLE) - 1}/{len(WHOLE)}"},
        {"Content-Range": f"bytes {MANY}-{len(WHOLE) + 4}/{len(WHOLE) + 5}"},
        {"Content-Range": f"bytes {MANY - 1}-{len(WHOLE) - 1}/{len(WHOLE)}"},
        {"Content-Range": "nonsense"},
        {},
    ],
    ids=["another version", "another size", "another place", "nonsense", "nothing"],
)
def test_range_of_another_file(server, config, pauses, headers):
    """A range of another version is not appended."""
    server.answers = [cut(), Answer(WHOLE[MANY:], 206, headers), Answer(WHOLE, headers=TAG, ranges=True)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, f"bytes={MANY}-", None]


def test_range_not_satisfiable(server, config, pauses):
    """The download restarts if the file has become shorter."""
    server.answers = [cut(), Answer(status=416), Answer(WHOLE, headers=TAG, ranges=True)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, f"bytes={MANY}-", None]


def test_many_interruptions(server, config, pauses):
    """A download with many interruptions completes as long as it makes progress."""
    server.answers = [*(cut(at) for at in range(MANY, len(WHOLE), MANY // 5 * 4)), cut(None)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert server.asked == len(server.answers) > 3
    assert set(pauses) == {1}


def test_tries_without_progress(server, config, pauses):
    """The download fails after several tries without progress."""
    server.answers = [cut()]
    with pytest.raises(InputError, match=rf"4 tries; last: cut off after {MANY} of {len(WHOLE)} bytes"):
        fetch_zip(config)
    assert ranges(server) == [None, *[f"bytes={MANY}-"] * 3]
    assert left(config) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_permanent_errors(server, config, pauses, status):
    """Permanent HTTP errors are not retried."""
    server.answers = [Answer(status=status)]
    with pytest.raises(InputError, match=f"1 tries; last: HTTP Error {status}"):
        fetch_zip(config)
    assert (server.asked, pauses) == (1, [])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_temporary_errors(server, config, pauses, status):
    """Temporary HTTP errors are retried."""
    server.answers = [Answer(status=status), Answer(status=status), Answer(WHOLE)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("header", "least", "most"), [("7", 7, 7), ("in 30 s", 25, 30), ("0", 1, 1), ("soon", 1, 1), ("-5", 1, 1)]
)
def test_retry_after(server, config, pauses, header, least, most):
    """Retry-After is respected."""
    after = formatdate(time.time() + 30, usegmt=True) if header == "in 30 s" else header
    server.answers = [Answer(status=503, headers={"Retry-After": after}), Answer(WHOLE)]
    fetch_zip(config)
    assert least <= pauses[0] <= most


def test_long_retry_after(server, config, pauses):
    """The download fails if Retry-After is an hour."""
    server.answers = [Answer(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(InputError, match=r"1 tries; last: HTTP Error 429: .*, retry after 3600 s\)"):
        fetch_zip(config)
    assert pauses == []


def test_server_never_answers(config, pauses, monkeypatch):
    """A server that never answers leads to a timeout."""
    monkeypatch.setattr(transfer, "_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config.url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(InputError, match="3 tries; last: .*timed out"):
            fetch_zip(config)


def test_server_stalls(server, config, pauses, monkeypatch):
    """After a stall the download resumes."""
    monkeypatch.setattr(transfer, "_TIMEOUT_S", 0.2)
    server.answers = [cut(hold=threading.Event()), cut(None)]
    assert fetch_zip(config).read_bytes() == WHOLE
    assert ranges(server) == [None, f"bytes={MANY}-"]


def test_server_is_too_slow(server, config, pauses, monkeypatch):
    """A connection that is too slow is closed."""
    monkeypatch.setattr(transfer, "_WINDOW_S", 0.1)
    server.answers = [Answer(WHOLE, drip_s=0.01)]
    with pytest.raises(InputError, match=r"3 tries; last: \d+ bytes in 0.1 s"):
        fetch_zip(config)


def test_file_size_limit(server, config, pauses):
    """A file that cannot grow is reported at once, and nothing is left behind."""
    server.answers = [Answer(zipped(4 << 20))]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, before[1]))  # a write then fails as on a full disk
    try:
        with pytest.raises(
            InputError, match=r"cache: cannot store downloads \(File too large\); set dataset.cache_dir"
        ):
            fetch_zip(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (server.asked, left(config)) == (1, [])


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=128k", "none", path], check=False).returncode:
        pytest.skip("only root mounts a file system")
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_disk(server, config, small_disk, pauses):
    """The error for a full disk names the directory."""
    server.answers = [Answer(WHOLE)]
    config.cache_dir = str(small_disk)
    with pytest.raises(InputError, match=rf"{small_disk}: cannot store downloads \(No space left on device\)"):
        fetch_zip(config)
    assert (server.asked, left(config)) == (1, [])


def test_target_is_a_directory(server, config, target):
    """A directory with the name of the zip is reported."""
    server.answers = [Answer(WHOLE)]
    target.mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{target}: cannot store downloads \(Is a directory\)"):
        fetch_zip(config)
    assert left(config) == [target.name]


def test_query_is_not_in_the_name(server, config):
    """The file name in the cache has no query."""
    server.answers = [Answer(WHOLE)]
    config.url += f"?signature={'0' * 300}"
    assert fetch_zip(config).name == f"a-{fetch_zip(config).stem[-8:]}.zip"
    assert server.asked == 1


def test_file_url(config, tmp_path):
    """The address may be a file:// URL."""
    (tmp_path / "a.zip").write_bytes(WHOLE)
    config.url = (tmp_path / "a.zip").as_uri()
    assert fetch_zip(config).read_bytes() == WHOLE


def fetching(config):
    """Start the download in a new process."""
    code = (
        "import sys; from afqmc.cli import run_command; from afqmc.data.download import fetch_zip; "
        "from afqmc.data.config import DatasetConfig; "
        "sys.exit(run_command(lambda: print(fetch_zip(DatasetConfig(url=sys.argv[1], cache_dir=sys.argv[2]))) or 0))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, config.url, config.cache_dir],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def half_way(config, process):
    """Wait until a part of the file has been downloaded."""
    for _ in range(1500):
        for part in Path(config.cache_dir).glob("*.part"):
            if part.stat().st_size == MANY:
                return part
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no part")


@pytest.mark.parametrize(
    ("signum", "code", "message"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupted_download(server, config, signum, code, message):
    """An interrupted download leaves nothing behind."""
    server.answers = [cut(hold=threading.Event())]
    process = fetching(config)
    half_way(config, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors.splitlines()[-1]) == (code, message)
    assert "Traceback" not in errors
    assert left(config) == []


def test_abandoned_partial_file(server, config, target):
    """The partial file of a killed download is removed once it is too old to be in use."""
    server.answers = [cut(hold=threading.Event()), Answer(WHOLE)]
    process = fetching(config)
    part = half_way(config, process)
    process.kill()
    process.communicate()
    another = part.with_name("another.zip.part")
    another.touch()
    os.utime(another, (0, 0))
    assert fetch_zip(config) == target
    assert left(config) == sorted([another.name, target.name, part.name])  # another computer might be writing it
    target.unlink()
    two_hours_ago = time.time() - 7200
    os.utime(part, (two_hours_ago, two_hours_ago))
    assert fetch_zip(config) == target
    assert left(config) == sorted([another.name, target.name])


def test_concurrent_downloads(server, config, target):
    """Two concurrent downloads both get the complete file."""
    server.answers = [cut(hold=threading.Barrier(2, timeout=60))]
    processes = [fetching(config) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out.strip()) == (0, str(target)), errors
    assert server.asked == 2
    assert left(config) == [target.name]
    assert target.read_bytes() == WHOLE
