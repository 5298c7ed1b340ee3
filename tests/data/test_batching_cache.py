"""Token cache: entries are found by content, complete or rebuilt, and built once."""

import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest

from afqmc.data.config import DatasetConfig
from afqmc.data.loading import load_dataset
from afqmc.data.token_cache import load_or_build
from afqmc.data.tokenization import PairTokenizer

TEXTS = (["花呗怎么还款", "b"], ["怎么还花呗", "c"])
ARRAYS = {"tokens": np.arange(10, dtype=np.int32), "segments": np.empty(0, np.int8), "offsets": np.array([0, 4, 10])}


class Maker:
    """Builds the arrays and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS


@pytest.fixture
def make():
    return Maker()


def replace(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def entry(directory):
    [result] = [path for path in directory.iterdir() if not path.name.startswith(".")]
    return result


def assert_equal(result):
    assert result.keys() == ARRAYS.keys()
    for name, array in result.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_second_run_uses_cache(tmp_path, make):
    """A second run uses the entry of the first."""
    assert_equal(load_or_build(tmp_path / "deep" / "er", "settings", TEXTS, make))
    assert_equal(load_or_build(tmp_path / "deep" / "er", "settings", TEXTS, make))
    assert make.calls == 1


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ("other", TEXTS),
        ("settings", (["花呗怎么还款", "bc"], ["怎么还花呗", ""])),  # the same characters, divided differently
        ("settings", TEXTS[::-1]),
    ],
)
def test_other_content(tmp_path, make, settings, texts):
    """Other settings or texts are another entry."""
    load_or_build(tmp_path, "settings", TEXTS, make)
    load_or_build(tmp_path, settings, texts, make)
    assert make.calls == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "tokens.npy").write_bytes((path / "tokens.npy").read_bytes()[:-4]),
        lambda path: (path / "tokens.npy").write_bytes((path / "tokens.npy").read_bytes()[:-4] + b"abcd"),
        lambda path: replace(path / "tokens.npy", b"<i4", b">i4"),  # the same bytes, other numbers
        lambda path: replace(path / "tokens.npy", b"<i4", b"<f4"),
        lambda path: replace(path / "tokens.npy", b"(10,)", b"(5,2)"),
        lambda path: (path / "offsets.npy").unlink(),
        lambda path: (path / "index.json").write_text("{"),
        lambda path: (path / "index.json").write_text(json.dumps({"tokens": 3})),
        lambda path: (path / "index.json").write_text("{}"),
        lambda path: (path / "index.json").write_text("null"),
        lambda path: (path / "index.json").write_text("[" * 100_000),
        lambda path: (path / "index.json").write_bytes(b"\xff\xfe{}"),
        lambda path: (path / "index.json").unlink(),
        lambda path: (path / "segments.npy").write_bytes(b""),
    ],
)
def test_damaged_entry(tmp_path, make, damage, caplog):
    """A damaged entry is reported and rebuilt."""
    load_or_build(tmp_path, "settings", TEXTS, make)
    damage(entry(tmp_path))
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2
    assert "damaged" in caplog.text
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens.npy", "index.json"])
def test_any_changed_byte_is_detected(tmp_path, make, name):
    """A change of any byte of an entry is detected."""
    load_or_build(tmp_path, "settings", TEXTS, make)
    path = entry(tmp_path) / name
    original = path.read_bytes()
    for position in range(len(original)):
        for flip in (2, 0x80):  # 2 turns < into > (the byte order), and a digit into another
            calls = make.calls
            damaged = bytearray(original)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
            assert make.calls == calls + 1 or json.loads(damaged) == json.loads(original)
            path.write_bytes(original)


class Exploding:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_pickle_is_not_loaded(tmp_path, make, caplog):
    """A pickle in an entry is never loaded."""
    load_or_build(tmp_path / "tokens", "settings", TEXTS, make)
    path = entry(tmp_path / "tokens") / "tokens.npy"
    np.save(path, np.array([Exploding(tmp_path / "trace")], object), allow_pickle=True)
    index = json.loads((path.parent / "index.json").read_text())
    index["tokens"] = hashlib.sha256(path.read_bytes()).hexdigest()  # an attacker can update the checksum
    (path.parent / "index.json").write_text(json.dumps(index))
    assert_equal(load_or_build(tmp_path / "tokens", "settings", TEXTS, make))
    assert "Python objects in dtype" in caplog.text
    assert not (tmp_path / "trace").exists()


def test_damaged_entry_cannot_be_removed(tmp_path, make, caplog):
    """If a damaged entry cannot be removed, the arrays are still returned."""
    load_or_build(tmp_path, "settings", TEXTS, make)
    path = entry(tmp_path)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "tokens.npy").write_bytes(b"damaged")
    path.symlink_to(tmp_path / "elsewhere")
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert "damaged" in caplog.text
    assert "tokens are not cached" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, and root again")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["read-only", "closed"])
def test_cache_of_another_user(make, caplog, mode):
    """A cache of another user is reported, and the arrays are still returned."""
    with tempfile.TemporaryDirectory() as directory:  # other users may not enter pytest's directory
        os.chmod(directory, mode)
        os.seteuid(65534)
        try:
            assert_equal(load_or_build(Path(directory) / "tokens", "settings", TEXTS, make))
        finally:
            os.seteuid(0)
    assert "tokens are not cached for later runs" in caplog.text
    assert "Permission denied" in caplog.text


def test_read_only_cache(tmp_path, make):
    """An intact entry of a read-only cache is used."""
    load_or_build(tmp_path, "settings", TEXTS, make)
    for path in (entry(tmp_path), tmp_path):
        path.chmod(0o555)
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 1


def test_full_disk(tmp_path, caplog):
    """A full disk is reported, and the arrays are still returned."""
    many = {"tokens": np.arange(1 << 19, dtype=np.int32)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # a write then fails as on a full disk
    try:
        result = load_or_build(tmp_path, "settings", TEXTS, lambda: many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    np.testing.assert_array_equal(result["tokens"], many["tokens"])
    assert "tokens are not cached for later runs" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/tokens", "x" * 300])
def test_unwritable_directory(name, tmp_path, make, caplog):
    """A directory that is not writable is reported, and the arrays are still returned."""
    (tmp_path / "file").touch()
    assert_equal(load_or_build(tmp_path / name, "settings", TEXTS, make))
    assert "not cached" in caplog.text


def _fill(directory):
    assert_equal(load_or_build(directory, "settings", TEXTS, lambda: ARRAYS))


@pytest.mark.parametrize("damaged", [False, True])
def test_concurrent_processes(tmp_path, make, damaged):
    """Concurrent processes all get a complete entry."""
    if damaged:
        load_or_build(tmp_path, "settings", TEXTS, make)
        (entry(tmp_path) / "tokens.npy").write_bytes(b"")
    context = multiprocessing.get_context("fork")
    fillers = [context.Process(target=_fill, args=(tmp_path,)) for _ in range(8)]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join(60)
    assert [filler.exitcode for filler in fillers] == [0] * 8
    _fill(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [entry(tmp_path).name]


def test_split_is_tokenised_once(tmp_path, pairs, tiny_tokenizer, monkeypatch):
    """A split is tokenised once for all runs."""
    first = PairTokenizer(tiny_tokenizer, 24, tmp_path).tokenize_cached(pairs)
    monkeypatch.setattr(PairTokenizer, "_chunks", None)  # tokenising again would fail
    again = PairTokenizer(tiny_tokenizer, 24, tmp_path).tokenize_cached(pairs)
    for name in ("tokens", "segments", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    with pytest.raises(TypeError):
        PairTokenizer(tiny_tokenizer, 23, tmp_path).tokenize_cached(pairs)  # another max_length is another entry


def test_changed_file(tmp_path, tiny_tokenizer):
    """A changed file yields new tokens."""
    config = DatasetConfig(train_file=str(tmp_path / "a.jsonl"), dev_file=str(tmp_path / "a.jsonl"))
    rows = [{"sentence1": "怎么还款", "sentence2": f"还{n}", "label": n % 2} for n in range(4)]
    for sentence in ("怎么还款", "怎么借款", "怎么还款"):  # of the same length, within one tick of the clock
        rows[0]["sentence1"] = sentence
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        pairs = load_dataset(config).dev
        result = PairTokenizer(tiny_tokenizer, 24, tmp_path / "tokens").tokenize_cached(pairs)
        np.testing.assert_array_equal(result.tokens, PairTokenizer(tiny_tokenizer, 24).encode(pairs).tokens)
    assert len(list((tmp_path / "tokens").iterdir())) == 2
