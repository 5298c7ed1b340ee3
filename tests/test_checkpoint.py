"""What is kept of a training: any state comes back as it was, and a directory is whole or is not there."""

import random

import numpy as np
import pytest
import torch

from afqmc.checkpoint.serialization import clone_to_cpu, read_state, write_state
from afqmc.checkpoint.store import CheckpointStore, DamagedError, hardlink_tree, replace_directory, verify_checksums
from afqmc.training.rng import random_state, set_random_state
from afqmc.utils.errors import InputError


def test_a_nested_state_comes_back_as_it_was(tmp_path):
    state = {
        "plain": [1, 2.5, float("inf"), None, True, "字"],
        "tuple": (1, (2, [3])),
        "keys": {0: {"exp_avg": torch.randn(3, 2)}, 1: {"step": torch.tensor(3.0)}},
        "$tensor": "no tensor",
        "bf16": torch.randn(4).bfloat16(),
        "empty": torch.zeros(0),
        "exact": 0.1 + 0.2,
    }
    write_state(tmp_path, state)
    found = read_state(tmp_path)
    assert repr(found) == repr(state)
    assert torch.equal(found["bf16"], state["bf16"])


@pytest.mark.parametrize("value", [object(), {1, 2}, np.float32(1)])
def test_what_cannot_be_saved_is_named_by_its_place(tmp_path, value):
    with pytest.raises(TypeError, match="/optimizer/state/0: cannot save a "):
        write_state(tmp_path, {"optimizer": {"state": [value]}})


def test_a_copy_does_not_follow_the_original():
    tensor = torch.zeros(2)
    frozen = clone_to_cpu({"a": [tensor], "b": (tensor[:1],)})
    tensor += 1
    assert frozen["a"][0].sum() == frozen["b"][0].sum() == 0


def test_random_generators_go_on_where_they_were(tmp_path):
    write_state(tmp_path, random_state())
    first = random.random(), np.random.rand(), torch.rand(1).item()
    set_random_state(read_state(tmp_path))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first


@pytest.mark.parametrize("content", [b"", b"[", b'{"a": {"$tensor": "b"}}', b"[" * 100_000])
def test_a_state_that_is_none_is_refused(tmp_path, content):
    write_state(tmp_path, {"a": torch.zeros(1)})
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(InputError, match="no readable state"):
        read_state(tmp_path)


def one_file(text):
    return lambda aside: (aside / "file").write_text(text)


def test_a_directory_is_replaced_whole_and_the_one_before_it_kept(tmp_path):
    last, previous = tmp_path / "last", tmp_path / "previous"
    for text in ("1", "2", "3"):
        replace_directory(last, one_file(text), previous)
    assert ((last / "file").read_text(), (previous / "file").read_text()) == ("3", "2")
    verify_checksums(last)
    verify_checksums(previous)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]


def test_what_cannot_be_written_leaves_the_one_before_it(tmp_path):
    def fails(aside):
        (aside / "file").write_text("half")
        raise OSError(28, "No space left on device")

    replace_directory(tmp_path / "last", one_file("1"))
    with pytest.raises(OSError, match="No space left"):
        replace_directory(tmp_path / "last", fails)
    assert (tmp_path / "last/file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_damage_is_named_also_in_a_directory_within(tmp_path):
    replace_directory(tmp_path / "best", one_file("weights"))
    replace_directory(tmp_path / "last", lambda aside: hardlink_tree(tmp_path / "best", aside / "best"))
    verify_checksums(tmp_path / "last")
    (tmp_path / "last/best/file").unlink()
    (tmp_path / "last/best/file").write_text("weighty")
    with pytest.raises(DamagedError, match="last/best/file: damaged"):
        verify_checksums(tmp_path / "last")
    (tmp_path / "last/best/file").unlink()
    with pytest.raises(DamagedError, match=r"last.*incomplete \(file is missing\)"):
        verify_checksums(tmp_path / "last")


def test_the_best_weights_are_put_back_as_they_were_when_the_state_was_saved(tmp_path):
    best = tmp_path / "best"
    store = CheckpointStore(tmp_path, best)
    replace_directory(best, one_file("of step 1"))
    store.save({"step": 1})
    store.wait()
    replace_directory(best, one_file("of step 2"))
    assert store.load(print) == {"step": 1}
    assert (best / "file").read_text() == "of step 1"
    assert (best / "file").stat().st_ino == (tmp_path / "last/best/file").stat().st_ino  # it takes no room


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path):
    assert CheckpointStore(tmp_path / "checkpoints", tmp_path / "best").load(print) is None
