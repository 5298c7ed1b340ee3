"""W&B online, on a terminal: no prompts and no output of the library, and offline if the server is unreachable."""

import re
from pathlib import Path

import pytest
from helpers import SMALL
from terminal import on_terminal
from wandb_file import Offline
from wandb_server import WandbServer

from afqmc.tracking.wandb_session import probe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    fake = WandbServer()
    yield fake
    fake.close()


def run(tmp_path, *overrides, env=None):
    """Train on a terminal, and return its output."""
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "TERM": "xterm", **(env or {})}
    options = (*SMALL, "tracker=wandb", f"hydra.run.dir={tmp_path / 'run'}", *overrides)
    code, shown = on_terminal("run", *options, cwd=tmp_path, env=home)
    assert code == 0, shown
    assert "wandb:" not in shown
    return shown


def kept_offline(tmp_path):
    return Offline(tmp_path / "run").exit_code() == 0


def test_no_prompt_for_key(tmp_path):
    """Without an API key there is no prompt; the run is kept offline."""
    shown = run(tmp_path, "tracker.mode=online")
    assert "No API key" in shown
    assert shown.count("wandb sync") == 1
    assert kept_offline(tmp_path)


@pytest.mark.slow
def test_unreachable_server(tmp_path):
    """With an unreachable server the run is kept offline."""
    shown = run(tmp_path, env={"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40})
    assert "cannot go online: http://127.0.0.1:9 does not answer" in shown
    assert "closing W&B" not in shown
    assert kept_offline(tmp_path)


@pytest.mark.slow
def test_online_output(tmp_path, server):
    """An online run prints one line about W&B, its URL."""
    shown = run(tmp_path, "tracker.group=mine", env=server.environment())
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in shown.splitlines()]  # where bars move the cursor
    identity = (tmp_path / "run/wandb/id").read_text(encoding="utf-8").strip()
    assert [line[line.index("W&B") :] for line in lines if "W&B" in line] == [
        f"W&B: {server.url}/me/afqmc/runs/{identity}"
    ]
    assert server.variables("upsertBucket")[0]["groupName"] == "mine"


@pytest.mark.slow
def test_refusing_server(tmp_path, server):
    """A run that the server refuses is kept offline."""
    server.refusing = True
    shown = run(tmp_path, "trainer.max_steps=2", env=server.environment())
    assert "cannot go online: Error initializing run" in shown
    assert kept_offline(tmp_path)


@pytest.mark.slow
def test_silent_server(tmp_path, server):
    """If W&B cannot even start, the run waits 10 s for it at the end."""
    server.silent.set()
    shown = run(tmp_path, env=server.environment())
    assert "closing W&B, at most 10 s" in shown
    assert "W&B: not started after 10 s, abandoned" in shown


@pytest.mark.parametrize(("code", "error"), [(200, None), (404, None), (503, "answers 503")])
def test_probe(code, error, server):
    """Any answer but a 5xx error means that the server is reachable."""
    server.code = code
    if error is None:
        probe(server.url)
    else:
        with pytest.raises(ConnectionError, match=error):
            probe(server.url)
