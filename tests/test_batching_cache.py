"""The cache of tokens: an entry is found by content, is whole or made again, and is made once."""

import json
import multiprocessing

import numpy as np
import pytest

from afqmc.batching.cache import kept
from afqmc.batching.tokens import Encoder

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


def entry(directory):
    [found] = [path for path in directory.iterdir() if not path.name.startswith(".")]
    return found


def assert_equal(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_second_run_finds_what_the_first_has_made(tmp_path, make):
    assert_equal(kept(tmp_path / "deep" / "er", "settings", TEXTS, make))
    assert_equal(kept(tmp_path / "deep" / "er", "settings", TEXTS, make))
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
    kept(tmp_path, "settings", TEXTS, make)
    kept(tmp_path, settings, texts, make)
    assert make.calls == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "tokens.npy").write_bytes((path / "tokens.npy").read_bytes()[:-4]),
        lambda path: (path / "tokens.npy").write_bytes((path / "tokens.npy").read_bytes()[:-4] + b"abcd"),
        lambda path: (path / "offsets.npy").unlink(),
        lambda path: (path / "index.json").write_text("{"),
        lambda path: (path / "index.json").write_text(json.dumps({"tokens": 3})),
        lambda path: (path / "segments.npy").write_bytes(b""),
    ],
)
def test_a_damaged_entry_is_told_and_made_again(tmp_path, make, damage, caplog):
    kept(tmp_path, "settings", TEXTS, make)
    damage(entry(tmp_path))
    assert_equal(kept(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2
    assert "damaged" in caplog.text
    assert_equal(kept(tmp_path, "settings", TEXTS, make))
    assert make.calls == 2


@pytest.mark.parametrize("name", ["file/tokens", "x" * 300])
def test_a_directory_that_cannot_be_written_is_told_and_done_without(name, tmp_path, make, caplog):
    (tmp_path / "file").touch()
    assert_equal(kept(tmp_path / name, "settings", TEXTS, make))
    assert "not kept" in caplog.text


def _fill(directory):
    assert_equal(kept(directory, "settings", TEXTS, lambda: ARRAYS))


def test_processes_that_fill_it_at_once_all_have_a_whole_entry(tmp_path):
    context = multiprocessing.get_context("fork")
    fillers = [context.Process(target=_fill, args=(tmp_path,)) for _ in range(8)]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join(60)
    assert [filler.exitcode for filler in fillers] == [0] * 8
    assert [path.name for path in tmp_path.iterdir()] == [entry(tmp_path).name]


def test_a_split_is_tokenised_once_for_all_runs(tmp_path, pairs, tiny_tokenizer, monkeypatch):
    first = Encoder(tiny_tokenizer, 24, tmp_path).encode_once(pairs)
    monkeypatch.setattr(Encoder, "_chunks", None)  # tokenising again would fail
    again = Encoder(tiny_tokenizer, 24, tmp_path).encode_once(pairs)
    for name in ("tokens", "segments", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    with pytest.raises(TypeError):
        Encoder(tiny_tokenizer, 23, tmp_path).encode_once(pairs)  # another length is another entry
