"""The cache of tokens: an entry is found by content, is whole or made again, and is made once."""

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
    """Counts how often it makes them."""

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
    [found] = [path for path in directory.iterdir() if not path.name.startswith(".")]
    return found


def assert_equal(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_second_run_finds_what_the_first_has_made(tmp_path, make):
    assert_equal(load_or_build(tmp_path / "deep" / "er", "settings", TEXTS, make))
    assert_equal(load_or_build(tmp_path / "deep" / "er", "settings", TEXTS, make))
    assert make.calls == 1


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ("other", TEXTS),
        ("settings", (["花呗怎么还款", "bc"], ["怎么还花呗", ""])),  # the same characters, cut elsewhere
        ("settings", TEXTS[::-1]),
    ],
)
def test_other_content_is_another_entry(tmp_path, make, settings, texts):
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
def test_a_damaged_entry_is_told_and_made_again(tmp_path, make, damage, caplog):
    load_or_build(tmp_path, "settings", TEXTS, make)
    damage(entry(tmp_path))
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2
    assert "damaged" in caplog.text
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens.npy", "index.json"])
def test_no_byte_of_an_entry_changes_unnoticed(tmp_path, make, name):
    load_or_build(tmp_path, "settings", TEXTS, make)
    path = entry(tmp_path) / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        for flip in (2, 0x80):  # 2 makes > of <: the other byte order, and of a digit another
            calls = make.calls
            damaged = bytearray(whole)
            damaged[place] ^= flip
            path.write_bytes(damaged)
            assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
            assert make.calls == calls + 1 or json.loads(damaged) == json.loads(whole)
            path.write_bytes(whole)


class Exploding:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_in_an_entry_is_never_read(tmp_path, make, caplog):
    load_or_build(tmp_path / "tokens", "settings", TEXTS, make)
    path = entry(tmp_path / "tokens") / "tokens.npy"
    np.save(path, np.array([Exploding(tmp_path / "trace")], object), allow_pickle=True)
    index = json.loads((path.parent / "index.json").read_text())
    index["tokens"] = hashlib.sha256(path.read_bytes()).hexdigest()  # the stranger knows how
    (path.parent / "index.json").write_text(json.dumps(index))
    assert_equal(load_or_build(tmp_path / "tokens", "settings", TEXTS, make))
    assert "Python objects in dtype" in caplog.text
    assert not (tmp_path / "trace").exists()


def test_a_damaged_entry_that_cannot_be_removed_is_done_without(tmp_path, make, caplog):
    load_or_build(tmp_path, "settings", TEXTS, make)
    path = entry(tmp_path)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "tokens.npy").write_bytes(b"damaged")
    path.symlink_to(tmp_path / "elsewhere")
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert "damaged" in caplog.text
    assert "tokens are not kept" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, and root again")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["read-only", "closed"])
def test_a_cache_of_another_user_is_told_and_done_without(make, caplog, mode):
    with tempfile.TemporaryDirectory() as directory:  # pytest's own may not be entered by others
        os.chmod(directory, mode)
        os.seteuid(65534)
        try:
            assert_equal(load_or_build(Path(directory) / "tokens", "settings", TEXTS, make))
        finally:
            os.seteuid(0)
    assert "tokens are not cached for later runs" in caplog.text
    assert "Permission denied" in caplog.text


def test_a_sound_entry_of_a_read_only_cache_is_used(tmp_path, make):
    load_or_build(tmp_path, "settings", TEXTS, make)
    for path in (entry(tmp_path), tmp_path):
        path.chmod(0o555)
    assert_equal(load_or_build(tmp_path, "settings", TEXTS, make))
    assert make.calls == 1


def test_a_full_disk_is_told_and_done_without(tmp_path, caplog):
    many = {"tokens": np.arange(1 << 19, dtype=np.int32)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # what a write meets is what a full disk does
    try:
        found = load_or_build(tmp_path, "settings", TEXTS, lambda: many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    np.testing.assert_array_equal(found["tokens"], many["tokens"])
    assert "tokens are not cached for later runs" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/tokens", "x" * 300])
def test_a_directory_that_cannot_be_written_is_told_and_done_without(name, tmp_path, make, caplog):
    (tmp_path / "file").touch()
    assert_equal(load_or_build(tmp_path / name, "settings", TEXTS, make))
    assert "not kept" in caplog.text


def _fill(directory):
    assert_equal(load_or_build(directory, "settings", TEXTS, lambda: ARRAYS))


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_fill_it_at_once_all_have_a_whole_entry(tmp_path, make, damaged):
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


def test_a_split_is_tokenised_once_for_all_runs(tmp_path, pairs, tiny_tokenizer, monkeypatch):
    first = PairTokenizer(tiny_tokenizer, 24, tmp_path).tokenize_cached(pairs)
    monkeypatch.setattr(PairTokenizer, "_chunks", None)  # tokenising again would fail
    again = PairTokenizer(tiny_tokenizer, 24, tmp_path).tokenize_cached(pairs)
    for name in ("tokens", "segments", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    with pytest.raises(TypeError):
        PairTokenizer(tiny_tokenizer, 23, tmp_path).tokenize_cached(pairs)  # another length is another entry


def test_a_file_that_changes_gives_its_new_tokens(tmp_path, tiny_tokenizer):
    config = DatasetConfig(train_file=str(tmp_path / "a.jsonl"), dev_file=str(tmp_path / "a.jsonl"))
    rows = [{"sentence1": "怎么还款", "sentence2": f"还{n}", "label": n % 2} for n in range(4)]
    for sentence in ("怎么还款", "怎么借款", "怎么还款"):  # as long as before, and within one tick of the clock
        rows[0]["sentence1"] = sentence
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        pairs = load_dataset(config).dev
        found = PairTokenizer(tiny_tokenizer, 24, tmp_path / "tokens").tokenize_cached(pairs)
        np.testing.assert_array_equal(found.tokens, PairTokenizer(tiny_tokenizer, 24).encode(pairs).tokens)
    assert len(list((tmp_path / "tokens").iterdir())) == 2
