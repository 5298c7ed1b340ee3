"""Names and ids of W&B runs: of single runs, jobs of a sweep, and runs of an agent."""

import re

import pytest

from afqmc.tracking.config import Backend, TrackerConfig
from afqmc.tracking.run_names import name_from_overrides, run_id, with_sweep_metadata
from afqmc.utils.errors import InputError


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["lr=1e-05", "seed=2"], "lr=1e-05 seed=2"),
        (["model.pooling=max", "lr=1e-05"], "lr=1e-05 model.pooling=max"),
        (["+optimizer.eps=1e-6", "resume=auto", "tracker.mode=offline", "tracker=wandb"], "optimizer.eps=1e-6"),
        (["+model.kwargs.api_key=abc"], "model.kwargs.api_key=***"),
        (["seed=1", "model.name_or_path=" + "a" * 200], f"seed=1 model.name_or_path={'a' * 99}..."),
        (["tracker.mode=offline"], None),
    ],
)
def test_name_from_overrides(overrides, name):
    """The name of a job lists its overrides, without secrets, in at most 128 characters."""
    assert name_from_overrides(overrides) == name
    assert name is None or len(name) <= 128


def test_sweep_metadata():
    """A sweep sets group, name and tag, but keeps what is configured."""
    assert with_sweep_metadata(TrackerConfig(), "nightly", ["lr=1"]) == TrackerConfig(
        group="nightly", name="lr=1", tags=["sweep"]
    )
    own = TrackerConfig(group="g", name="n", tags=["a"])
    assert with_sweep_metadata(own, "nightly", ["lr=1"]) == TrackerConfig(group="g", name="n", tags=["a", "sweep"])
    assert with_sweep_metadata(TrackerConfig(tags=["sweep"]), "nightly", []).tags == ["sweep"]


def test_single_run_is_unchanged():
    """Outside a sweep the config is unchanged."""
    assert with_sweep_metadata(TrackerConfig(), None, ["lr=1"]) == TrackerConfig()


def test_agent_run_is_a_job(monkeypatch):
    """A run of an agent is named like a job, and a sweep under an agent is refused."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    assert with_sweep_metadata(TrackerConfig(), None, ["lr=1"]) == TrackerConfig(name="lr=1", tags=["sweep"])
    with pytest.raises(InputError, match="leave -m out"):
        with_sweep_metadata(TrackerConfig(), "nightly", ["lr=1"])
    assert with_sweep_metadata(TrackerConfig(backend=Backend.none), "nightly", ["lr=1"]).group == "nightly"


def test_id_is_stable(tmp_path):
    """The id of a run directory does not change."""
    identity = run_id(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", identity)
    assert run_id(tmp_path) == identity


def test_invalid_id_is_replaced(tmp_path):
    """An invalid id in the file is replaced."""
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/id").write_text("../../elsewhere", encoding="utf-8")
    assert re.fullmatch("[0-9a-f]{8}", run_id(tmp_path))


def test_agent_id_is_saved(tmp_path, monkeypatch):
    """The id of an agent replaces the directory's, and stays after the agent has ended."""
    before = run_id(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "of-agent")
    assert run_id(tmp_path) == before  # WANDB_RUN_ID alone does not replace a saved id
    monkeypatch.setenv("WANDB_SWEEP_ID", "of-sweep")
    assert run_id(tmp_path) == "of-agent"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert run_id(tmp_path) == "of-agent"
