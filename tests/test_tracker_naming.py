"""What W&B calls a run: the jobs of a sweep by what they were told, the runs of an agent as the agent says."""

import re

import pytest

from afqmc.tracking.config import Service, TrackerConfig
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
        (["+model.args.api_key=abc"], "model.args.api_key=***"),
        (["seed=1", "model.name_or_path=" + "a" * 200], f"seed=1 model.name_or_path={'a' * 99}..."),
        (["tracker.mode=offline"], None),
    ],
)
def test_a_job_is_named_by_what_it_was_told(overrides, name):
    assert name_from_overrides(overrides) == name
    assert name is None or len(name) <= 128


def test_what_is_configured_stays_beside_what_a_sweep_adds():
    assert with_sweep_metadata(TrackerConfig(), "nightly", ["lr=1"]) == TrackerConfig(
        group="nightly", name="lr=1", tags=["sweep"]
    )
    own = TrackerConfig(group="g", name="n", tags=["a"])
    assert with_sweep_metadata(own, "nightly", ["lr=1"]) == TrackerConfig(group="g", name="n", tags=["a", "sweep"])
    assert with_sweep_metadata(TrackerConfig(tags=["sweep"]), "nightly", []).tags == ["sweep"]


def test_a_run_of_its_own_is_left_as_it_is():
    assert with_sweep_metadata(TrackerConfig(), None, ["lr=1"]) == TrackerConfig()


def test_an_agent_s_run_is_one_job(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    assert with_sweep_metadata(TrackerConfig(), None, ["lr=1"]) == TrackerConfig(name="lr=1", tags=["sweep"])
    with pytest.raises(InputError, match="leave -m out"):
        with_sweep_metadata(TrackerConfig(), "nightly", ["lr=1"])
    assert with_sweep_metadata(TrackerConfig(service=Service.none), "nightly", ["lr=1"]).group == "nightly"


def test_an_id_stays_the_directory_s(tmp_path):
    found = run_id(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", found)
    assert run_id(tmp_path) == found


def test_what_is_no_id_is_not_taken_for_one(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/id").write_text("../../elsewhere", encoding="utf-8")
    assert re.fullmatch("[0-9a-f]{8}", run_id(tmp_path))


def test_the_id_that_an_agent_gave_is_kept_after_it(tmp_path, monkeypatch):
    before = run_id(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "of-agent")
    assert run_id(tmp_path) == before  # a person's own variable names no run of a directory that has one
    monkeypatch.setenv("WANDB_SWEEP_ID", "of-sweep")
    assert run_id(tmp_path) == "of-agent"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert run_id(tmp_path) == "of-agent"
