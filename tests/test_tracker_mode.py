"""Whether a run goes online is decided by W&B's own settings, unless the config says it."""

import logging
import subprocess
import sys

import pytest
from helpers import PATIENCE_S
from wandb import teardown

from afqmc.tracking.base import NullTracker
from afqmc.tracking.config import TrackerConfig, WandbMode
from afqmc.tracking.factory import build_tracker
from afqmc.tracking.wandb_mode import logged_in, resolve_mode
from afqmc.tracking.wandb_session import NotSentError, can_send
from afqmc.tracking.wandb_tracker import WandbTracker

KEY = "0" * 40
ONLINE = TrackerConfig(mode=WandbMode.online)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty directory to work in, an empty home, and nobody logged in."""
    for name in ("API_KEY", "MODE", "BASE_URL", "DIR", "DISABLED", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def wandb(*arguments):
    """W&B's own command line."""
    subprocess.run([sys.executable, "-m", "wandb", *arguments], check=True, capture_output=True, timeout=PATIENCE_S)


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, home):
    """The key of the configured server counts, from the environment or the netrc file."""
    assert resolve_mode(TrackerConfig()).mode == "offline"
    for host in ("api.wandb.ai", "api.forge.coreweave.com"):  # as an older login wrote it, and a newer one
        (home / "netrc").write_text(f"machine {host} login user password {KEY}")
        assert resolve_mode(TrackerConfig()).mode == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example")
    assert resolve_mode(TrackerConfig()).mode == "offline"
    assert "not logged in to https://elsewhere.example" in resolve_mode(TrackerConfig()).reason
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve_mode(TrackerConfig()).mode == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode(TrackerConfig()).mode == "offline"
    assert resolve_mode(ONLINE).mode == "online"


def test_what_the_command_line_of_wandb_was_told_counts(key, home):
    wandb("offline")
    found = resolve_mode(TrackerConfig())
    assert (found.mode, found.by_default) == ("offline", False)
    assert "wandb/settings (mode=offline)" in found.reason
    assert can_send() is False
    wandb("online")
    assert resolve_mode(TrackerConfig()).mode == "online"
    wandb("disabled")
    assert isinstance(build_tracker(ONLINE, {}, home), NullTracker)
    with pytest.raises(NotSentError, match="mode=disabled"):
        can_send()


def test_what_it_was_told_for_another_directory_counts_too(key, home, monkeypatch):
    """``wandb offline`` writes to WANDB_DIR, where it is set."""
    (home / "elsewhere").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(home / "elsewhere"))
    wandb("offline")
    assert resolve_mode(TrackerConfig()).reason == f"{home}/elsewhere/wandb/settings (mode=offline)"


def test_the_file_of_the_user_counts_and_that_of_the_directory_wins(key, home):
    (home / "home").mkdir()
    (home / "home/settings").write_text("[default]\nmode = dryrun\nsome_old_key = 1\n")
    assert resolve_mode(TrackerConfig()).mode == "offline"
    (home / "wandb").mkdir()
    (home / "wandb/settings").write_text("[default]\nmode = online\n")
    assert resolve_mode(TrackerConfig()).mode == "online"


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "run", "online"),
        ("WANDB_MODE", "shared", "online"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "1", "disabled"),
        ("WANDB_DISABLED", "false", "online"),
    ],
)
def test_each_spelling_of_the_environment_counts(name, value, mode, key, monkeypatch):
    monkeypatch.setenv(name, value)
    assert resolve_mode(TrackerConfig()).mode == mode


@pytest.mark.parametrize("value", ["OFFLINE", "offline ", "dry-run", "none", ""])
def test_a_mode_that_wandb_does_not_know_never_means_online(value, key, monkeypatch, home, caplog):
    monkeypatch.setenv("WANDB_MODE", value)
    with caplog.at_level(logging.WARNING):
        assert isinstance(build_tracker(TrackerConfig(), {}, home), NullTracker)
    assert "W&B's own settings are invalid: WANDB_MODE: Input should be 'online', 'offline'" in caplog.text


def test_an_invalid_key_is_not_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "my-secret ")
    found = resolve_mode(TrackerConfig())
    assert found.mode == "disabled"
    assert "WANDB_API_KEY" in found.reason
    assert "my-secret" not in found.reason


def test_an_explicit_mode_wins_and_the_contradiction_is_said(key, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode(ONLINE).mode == "online"
    assert resolve_mode(ONLINE).warning == "tracker.mode=online wins over WANDB_MODE=offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert resolve_mode(TrackerConfig(mode=WandbMode.offline)).mode == "offline"
    assert resolve_mode(ONLINE).warning is None


def test_the_server_of_the_settings_file_is_the_one_that_needs_a_key(home):
    """``wandb login --host`` writes the address to the file of the user."""
    (home / "home").mkdir()
    (home / "home/settings").write_text("[default]\nbase_url = https://mine.example\n")
    (home / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}")
    assert not logged_in()
    (home / "netrc").write_text(f"machine mine.example login user password {KEY}")
    assert logged_in()


@pytest.mark.parametrize(
    ("setting", "variables", "told"),
    [
        ("tracker.mode=offline", {}, "offline (tracker.mode=offline); to send this run later: wandb sync"),
        ("tracker.mode=auto", {"WANDB_MODE": "offline"}, "offline (WANDB_MODE=offline)"),
        ("tracker.mode=auto", {}, "offline (not logged in to https://"),
        (
            "tracker.mode=auto",
            {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "offline (the server is unreachable, or refused the run)",
        ),
    ],
)
def test_an_offline_run_says_why_it_is_offline(home, monkeypatch, caplog, request, setting, variables, told):
    request.addfinalizer(teardown)  # the library keeps the address of its server
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        tracker = WandbTracker(TrackerConfig(mode=WandbMode(setting.partition("=")[2])), {}, home)
        tracker.finish(0)
    assert f"W&B: {told}" in caplog.text
