"""Whether a run is online, by tracker.mode and W&B's own settings."""

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
    """Empty working and home directories without a login."""
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


def test_auto_follows_key(monkeypatch, home):
    """With mode=auto a run is online if there is a key for the configured server, in the environment or netrc."""
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


def test_wandb_command_line_settings(key, home):
    """``wandb offline``, ``wandb online`` and ``wandb disabled`` are respected."""
    wandb("offline")
    resolved = resolve_mode(TrackerConfig())
    assert (resolved.mode, resolved.by_default) == ("offline", False)
    assert "wandb/settings (mode=offline)" in resolved.reason
    assert can_send() is False
    wandb("online")
    assert resolve_mode(TrackerConfig()).mode == "online"
    wandb("disabled")
    assert isinstance(build_tracker(ONLINE, {}, home), NullTracker)
    with pytest.raises(NotSentError, match="mode=disabled"):
        can_send()


def test_wandb_dir_settings(key, home, monkeypatch):
    """The settings file in WANDB_DIR is read, to which ``wandb offline`` writes."""
    (home / "elsewhere").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(home / "elsewhere"))
    wandb("offline")
    assert resolve_mode(TrackerConfig()).reason == f"{home}/elsewhere/wandb/settings (mode=offline)"


def test_settings_file_precedence(key, home):
    """The settings file of the current directory takes precedence over the user's."""
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
def test_mode_variables(name, value, mode, key, monkeypatch):
    """All spellings of WANDB_MODE and WANDB_DISABLED are understood."""
    monkeypatch.setenv(name, value)
    assert resolve_mode(TrackerConfig()).mode == mode


@pytest.mark.parametrize("value", ["OFFLINE", "offline ", "dry-run", "none", ""])
def test_unknown_mode_is_not_online(value, key, monkeypatch, home, caplog):
    """With an invalid WANDB_MODE tracking is off, with a warning."""
    monkeypatch.setenv("WANDB_MODE", value)
    with caplog.at_level(logging.WARNING):
        assert isinstance(build_tracker(TrackerConfig(), {}, home), NullTracker)
    assert "W&B's own settings are invalid: WANDB_MODE: Input should be 'online', 'offline'" in caplog.text


def test_invalid_key_is_not_shown(monkeypatch):
    """The message about an invalid API key does not contain it."""
    monkeypatch.setenv("WANDB_API_KEY", "my-secret ")
    resolved = resolve_mode(TrackerConfig())
    assert resolved.mode == "disabled"
    assert "WANDB_API_KEY" in resolved.reason
    assert "my-secret" not in resolved.reason


def test_explicit_mode_wins(key, monkeypatch):
    """An explicit tracker.mode wins over WANDB_MODE, with a warning if they differ."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode(ONLINE).mode == "online"
    assert resolve_mode(ONLINE).warning == "tracker.mode=online wins over WANDB_MODE=offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert resolve_mode(TrackerConfig(mode=WandbMode.offline)).mode == "offline"
    assert resolve_mode(ONLINE).warning is None


def test_key_of_configured_server(home):
    """The key must belong to the server of the settings file, where ``wandb login --host`` writes it."""
    (home / "home").mkdir()
    (home / "home/settings").write_text("[default]\nbase_url = https://mine.example\n")
    (home / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}")
    assert not logged_in()
    (home / "netrc").write_text(f"machine mine.example login user password {KEY}")
    assert logged_in()


@pytest.mark.parametrize(
    ("setting", "variables", "reason"),
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
def test_offline_reason(home, monkeypatch, caplog, request, setting, variables, reason):
    """The log says why a run is offline."""
    request.addfinalizer(teardown)  # the library keeps the address of its server
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        tracker = WandbTracker(TrackerConfig(mode=WandbMode(setting.partition("=")[2])), {}, home)
        tracker.finish(0)
    assert f"W&B: {reason}" in caplog.text
