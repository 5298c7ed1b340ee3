"""Decide whether a W&B run is online, offline or disabled, by ``tracker.mode`` and W&B's own settings."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from afqmc.tracking.config import TrackerConfig, WandbMode

if TYPE_CHECKING:
    from wandb import Settings

_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # current and former name of W&B's server; the keys are the same
_VARIABLES = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_KEYS = tuple(name.removeprefix("WANDB_").lower() for name in _VARIABLES)  # their names in W&B's settings files
_MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_FALSE = ("", "0", "FALSE", "NO", "OFF")


@dataclass(frozen=True)
class ResolvedMode:
    """The mode of a W&B run, and how it was decided.

    Attributes:
        mode: ``disabled`` means that no W&B run is made, not even in local files.
        reason: The key, variable or file that decided, for "W&B: offline (...)".
        warning: A contradiction to report to the user, if any.
        by_default: Whether the mode follows from being logged in or not, as it is not configured.
    """

    mode: Literal["online", "offline", "disabled"]
    reason: str
    warning: str | None = None
    by_default: bool = False


@dataclass(frozen=True)
class _OwnSettings:
    """W&B's own settings, from its files and the environment. ``source`` names what set the mode, if anything."""

    settings: Settings
    source: str | None


def resolve_mode(config: TrackerConfig) -> ResolvedMode:
    """Decide the mode: by ``tracker.mode``, else by W&B's own settings, else by whether there is an API key.

    ``disabled`` wins wherever it is set. Otherwise an explicit ``tracker.mode`` wins over W&B's own settings, as the
    argument of ``wandb.init`` does, with a warning if they differ.
    """
    explicit = None if config.mode is WandbMode.auto else f"tracker.mode={config.mode.value}"
    if config.mode is WandbMode.disabled:
        return ResolvedMode("disabled", str(explicit))
    if os.environ.get("WANDB_DISABLED", "").upper() not in _FALSE:  # this variable is defined by transformers
        return ResolvedMode("disabled", f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}")
    try:
        own = _own_settings()
    except ValueError as error:
        reason = f"W&B's own settings are invalid: {error}"
        return ResolvedMode("disabled", reason, reason)
    own_mode = _MODES[own.settings.mode]
    if own.source is not None and own_mode == "disabled":
        return ResolvedMode("disabled", own.source)
    if explicit is not None:
        mode: Literal["online", "offline"] = "online" if config.mode is WandbMode.online else "offline"
        differs = own.source is not None and own_mode != mode
        return ResolvedMode(mode, explicit, f"{explicit} wins over {own.source}" if differs else None)
    if own.source is not None:
        return ResolvedMode(own_mode, own.source)
    if _has_key(own.settings):
        return ResolvedMode("online", "logged in", by_default=True)
    reason = f"not logged in to {own.settings.base_url}; log in by `wandb login` or WANDB_API_KEY"
    return ResolvedMode("offline", reason, by_default=True)


def logged_in() -> bool:
    """Return whether there is a key for the configured server in the environment, W&B's settings or the netrc file."""
    return _has_key(_own_settings().settings)


def _own_settings() -> _OwnSettings:
    """Read the settings that decide the mode, and no others, so that an invalid one elsewhere does no harm.

    Raises:
        ValueError: naming an invalid setting and its file or variable.
    """
    import wandb

    settings, source = wandb.Settings(silent=True), None
    for path in _settings_files(settings):
        stored = _read_settings_file(path)
        for key in _KEYS:
            if key in stored:
                _set(settings, key, stored[key], f"{path}: {key}")
        source = f"{path} (mode={stored['mode']})" if "mode" in stored else source
    for name, key in zip(_VARIABLES, _KEYS, strict=True):
        if name in os.environ:
            _set(settings, key, os.environ[name], name)
    if "WANDB_MODE" in os.environ:
        source = f"WANDB_MODE={os.environ['WANDB_MODE']}"
    return _OwnSettings(settings, source)


def _settings_files(settings: Settings) -> list[Path]:
    """Return the settings files of the user, the current directory and ``WANDB_DIR``; later ones take precedence.

    ``wandb offline`` writes to the last one.
    """
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    files = [user, Path(settings.settings_workspace)]
    if root := os.environ.get("WANDB_DIR"):
        settings = settings.model_copy(update={"root_dir": root})
        files.append(Path(settings.settings_workspace))
    return list(dict.fromkeys(files))


def _read_settings_file(path: Path) -> dict[str, str]:
    """Return a settings file as W&B parses it."""
    from wandb.sdk.lib.settings_file import SettingsFiles

    return SettingsFiles(global_settings=None, local_settings=path).all()


def _set(settings: Settings, key: str, value: Any, source: str) -> None:
    try:
        setattr(settings, key, value)
    except Exception as error:  # pydantic quotes the value, which may be an API key; W&B raises other classes too
        reason = error.errors()[0]["msg"] if hasattr(error, "errors") else "invalid"
        raise ValueError(f"{source}: {reason}") from None


def _has_key(settings: Settings) -> bool:
    if settings.api_key or settings.identity_token_file:
        return True
    host = urlsplit(settings.base_url).hostname or ""
    try:
        keys = netrc.netrc(os.environ.get("NETRC"))
        return any(keys.authenticators(name) is not None for name in (_CLOUD if host in _CLOUD else (host,)))
    except (OSError, netrc.NetrcParseError):
        return False
