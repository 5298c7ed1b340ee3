"""Runs that are started by a W&B sweep agent, with the agent of the library itself."""

import os
import re
from pathlib import Path

import pytest
import yaml
from helpers import PATIENCE_S, PYTHON, SMALL
from wandb_file import Offline

from afqmc import config as schema
from afqmc.config import compose, conf_dir
from afqmc.run_dir import RunDir, Status

FILE = Path(conf_dir()) / "wandb-sweep.yaml"
CHOSEN = {"lr": {"value": 2e-05}, "batch_size": {"value": 16}, "seed": {"value": 3}}
SHARED = [*(word for word in SMALL if word.partition("=")[0] not in ("batch_size", "tracker")), "trainer.max_steps=2"]


def sweep():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_sweep_file_is_valid():
    """The parameters of the sweep file are valid overrides."""
    for key, space in sweep()["parameters"].items():
        for value in space.get("values", [space.get("min"), space.get("max")]):
            compose([f"{key}={value}"])


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """The agent of the library, with the command of the sweep file, and without a server."""
    from wandb.wandb_agent import Agent

    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "")  # the agent sets some of them; monkeypatch restores them
        monkeypatch.delenv(name)
    environment = {
        "WANDB_SWEEP_ID": "sweep1", "WANDB_MODE": "offline", "NETRC": str(tmp_path / "netrc"),
        "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1",
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    agent = Agent(api=None, queue=None, sweep_id="sweep1")
    command = sweep()["command"]
    agent._sweep_command = [*command[:-1], *SHARED, command[-1]]
    return agent


def execute(agent, kind, run):
    """Let the agent execute a command, as sent by its server; return the exit code of the run."""
    response = agent._process_command(
        {"type": kind, "run_id": run, "program": sweep()["program"], "args": CHOSEN, "id": "1"}
    )
    assert "exception" not in response, response
    return agent._run_processes[run].wait(timeout=PATIENCE_S)


def test_agent_run(agent, tmp_path):
    """A run started by an agent uses its parameters and its run id."""
    assert execute(agent, "run", "abcd1234") == 0
    run_dir = RunDir(tmp_path / "outputs/sweeps/sweep1/abcd1234")
    config = schema.load(run_dir.path)
    assert (config.lr, config.batch_size, config.seed) == (2e-05, 16, 3)
    assert run_dir.read_summary()["steps"] == 2
    offline = Offline(run_dir.path)
    assert (offline.run.run_id, offline.run.sweep_id) == ("abcd1234", "sweep1")
    assert (run_dir.path / "wandb/id").read_text(encoding="utf-8").strip() == "abcd1234"
    assert offline.config["lr"] == 2e-05
    assert re.search(r"\blr=2e-05 batch_size=16 seed=3\b", offline.run.display_name)


@pytest.mark.slow
def test_agent_resumes_run(agent, tmp_path):
    """A run that the agent starts again is resumed in its own directory."""
    assert execute(agent, "run", "abcd1234") == 0
    run_dir = RunDir(tmp_path / "outputs/sweeps/sweep1/abcd1234")
    (run_dir.path / "summary.json").unlink()
    run_dir.write_status(Status.running, step=2)
    assert execute(agent, "resume", "abcd1234") == 0
    assert run_dir.read_summary()["steps"] == 2
    assert [path.name for path in run_dir.path.parent.iterdir()] == ["abcd1234"]
