"""Checkpoints: a state is restored exactly, and a directory is replaced completely or not at all."""

import random

import numpy as np
import pytest
import torch

from afqmc.checkpoint.serialization import clone_to_cpu, read_state, write_state
from afqmc.checkpoint.store import CheckpointStore, DamagedError, hardlink_tree, replace_directory, verify_checksums
from afqmc.training.rng import random_state, set_random_state
from afqmc.utils.errors import InputError


def test_nested_state_round_trip(tmp_path):
    """Any nested state is read back equal."""
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
    restored = read_state(tmp_path)
    assert repr(restored) == repr(state)
    assert torch.equal(restored["bf16"], state["bf16"])


@pytest.mark.parametrize("value", [object(), {1, 2}, np.float32(1)])
def test_unsupported_value_is_named(tmp_path, value):
    """A value that cannot be saved is named by its path in the state."""
    with pytest.raises(TypeError, match="/optimizer/state/0: cannot save a "):
        clone_to_cpu({"optimizer": {"state": [value]}})


def test_clone_is_independent():
    """Changes to a tensor do not reach its clone."""
    tensor = torch.zeros(2)
    clone = clone_to_cpu({"a": [tensor], "b": (tensor[:1],)})
    tensor += 1
    assert clone["a"][0].sum() == clone["b"][0].sum() == 0


def test_random_state_round_trip(tmp_path):
    """The random generators continue from a state that was saved."""
    write_state(tmp_path, random_state())
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    set_random_state(read_state(tmp_path))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize("content", [b"", b"[", b'{"a": {"$tensor": "b"}}', b"[" * 100_000])
def test_invalid_state_is_rejected(tmp_path, content):
    """A damaged or invalid state is rejected with one message."""
    write_state(tmp_path, {"a": torch.zeros(1)})
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(InputError, match="no readable state"):
        read_state(tmp_path)


def one_file(text):
    return lambda directory: (directory / "file").write_text(text)


def test_replace_keeps_previous(tmp_path):
    """A directory is replaced completely, and its predecessor is kept."""
    last, previous = tmp_path / "last", tmp_path / "previous"
    for text in ("1", "2", "3"):
        replace_directory(last, one_file(text), previous)
    assert ((last / "file").read_text(), (previous / "file").read_text()) == ("3", "2")
    verify_checksums(last)
    verify_checksums(previous)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]


def test_failed_write_keeps_current(tmp_path):
    """If writing fails, the current directory stays, and no temporary files remain."""

    def fails(directory):
        (directory / "file").write_text("half")
        raise OSError(28, "No space left on device")

    replace_directory(tmp_path / "last", one_file("1"))
    with pytest.raises(OSError, match="No space left"):
        replace_directory(tmp_path / "last", fails)
    assert (tmp_path / "last/file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_damage_is_named(tmp_path):
    """A damaged or missing file is named, in a subdirectory too."""
    replace_directory(tmp_path / "best", one_file("weights"))
    replace_directory(tmp_path / "last", lambda path: hardlink_tree(tmp_path / "best", path / "best"))
    verify_checksums(tmp_path / "last")
    (tmp_path / "last/best/file").unlink()
    (tmp_path / "last/best/file").write_text("weighty")
    with pytest.raises(DamagedError, match="last/best/file: damaged"):
        verify_checksums(tmp_path / "last")
    (tmp_path / "last/best/file").unlink()
    with pytest.raises(DamagedError, match=r"last.*incomplete \(file is missing\)"):
        verify_checksums(tmp_path / "last")


def test_load_restores_best_weights(tmp_path):
    """Loading a checkpoint restores the best weights that were saved with it, as hard links."""
    best = tmp_path / "best"
    store = CheckpointStore(tmp_path, best)
    replace_directory(best, one_file("of step 1"))
    store.save({"step": 1})
    store.wait()
    replace_directory(best, one_file("of step 2"))
    assert store.load(print) == {"step": 1}
    assert (best / "file").read_text() == "of step 1"
    assert (best / "file").stat().st_ino == (tmp_path / "last/best/file").stat().st_ino  # no additional disk space


def test_load_without_checkpoint(tmp_path):
    """Without a checkpoint there is no state to load."""
    assert CheckpointStore(tmp_path / "checkpoints", tmp_path / "best").load(print) is None
