"""Test the message for an unreachable hub."""

import importlib.util

import huggingface_hub
import pytest
from huggingface_hub import constants

from afqmc.models import hub
from afqmc.models.config import ModelConfig

HOUSE = "https://127.0.0.1:9"  # nothing listens on this port
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def online(monkeypatch):
    """The hub's client without offline mode and without this machine's proxies; takes an address and variables."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def at(endpoint, **variables):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        huggingface_hub.close_session()  # the client reads the proxies when it is made
        hub.hub_failure.cache_clear()

    yield at
    monkeypatch.undo()
    huggingface_hub.close_session()
    hub.hub_failure.cache_clear()


@pytest.mark.parametrize(
    ("endpoint", "variables", "reason"),
    [
        ("mirror.example", {}, "missing an 'http://' or 'https://' protocol"),
        pytest.param(
            HOUSE,
            {"ALL_PROXY": "socks5://127.0.0.1:9"},
            "the 'socksio' package is not installed",
            marks=pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="it is installed"),
        ),
        (HOUSE, {"HTTPS_PROXY": "http://127.0.0.1:9"}, "refused.* (through the proxy http://127.0.0.1:9)"),
        ("https://no-such-host.invalid", {}, "ConnectError"),
        (HOUSE, {}, "refused"),
    ],
    ids=["no scheme", "socks without its package", "proxy", "unknown host", "refused"],
)
def test_reason_is_in_first_line(online, endpoint, variables, reason):
    """The first line says why the hub is unreachable."""
    online(endpoint, **variables)
    message = str(hub.loading_error("tokenizer", ModelConfig(name_or_path="some/model"), OSError("not in the cache")))
    first = message.splitlines()[0]
    assert f"tried {endpoint} (no answer: " in first
    for part in reason.split(".* "):
        assert part in first


def test_passwords_are_redacted(online):
    """Passwords in the addresses of the hub and of a proxy are redacted."""
    online("https://bob:S3CRETpw@127.0.0.1:9", HTTPS_PROXY="http://amy:0THERpw@127.0.0.1:9")
    message = str(hub.loading_error("tokenizer", ModelConfig(name_or_path="some/model"), OSError("not in the cache")))
    assert "S3CRETpw" not in message
    assert "0THERpw" not in message
    assert "through the proxy http://***@127.0.0.1:9" in message
