"""Whether a W&B run goes online: what the ``tracker`` group says, what W&B's own settings say, and why."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional
from urllib.parse import urlsplit

from afqmc.tracking.config import TrackerConfig, WandbMode

if TYPE_CHECKING:
    from wandb import Settings

_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # W&B's own server: its name now, and before; one key for both
_VARIABLES = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_KEYS = tuple(name.removeprefix("WANDB_").lower() for name in _VARIABLES)  # the same in W&B's settings files
_MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    "online": "online", "run": "online", "shared": "online",
    "offline": "offline", "dryrun": "offline", "disabled": "disabled",
}  # fmt: skip
_FALSE = ("", "0", "FALSE", "NO", "OFF")


@dataclass(frozen=True)
class ResolvedMode:
    """Where W&B's figures go.

    Attributes:
        mode: ``disabled`` means that there is no W&B run at all.
        reason: Names the key, variable or file that decided, as the rest of "W&B: offline: ...".
        warning: What the user should hear about it, if anything.
        by_default: Whether nobody asked for the mode: it depends on whether a key is there.
    """

    mode: Literal["online", "offline", "disabled"]
    reason: str
    warning: Optional[str] = None
    by_default: bool = False


@dataclass(frozen=True)
class _Own:
    """W&B's own settings, from its files and then from the environment; ``source`` names what set the mode."""

    settings: Settings
    source: Optional[str]


def resolve_mode(config: TrackerConfig) -> ResolvedMode:
    """Decide by ``tracker.mode``; for ``auto`` W&B's own settings decide, and then whether a key is there.

    ``disabled`` wins wherever it is set. An explicit ``tracker.mode`` wins over the rest of W&B's own settings, as the
    argument of ``wandb.init`` does; where the two differ, that is the ``warning``.
    """
    explicit = None if config.mode is WandbMode.auto else f"tracker.mode={config.mode.value}"
    if config.mode is WandbMode.disabled:
        return ResolvedMode("disabled", str(explicit))
    if os.environ.get("WANDB_DISABLED", "").upper() not in _FALSE:  # the variable of the transformers library
        return ResolvedMode("disabled", f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}")
    try:
        own = _own_settings()
    except ValueError as error:
        told = f"W&B's own settings are invalid: {error}"
        return ResolvedMode("disabled", told, told)
    asked = _MODES[own.settings.mode]
    if own.source is not None and asked == "disabled":
        return ResolvedMode("disabled", own.source)
    if explicit is not None:
        mode: Literal["online", "offline"] = "online" if config.mode is WandbMode.online else "offline"
        differs = own.source is not None and asked != mode
        return ResolvedMode(mode, explicit, f"{explicit} wins over {own.source}" if differs else None)
    if own.source is not None:
        return ResolvedMode(asked, own.source)
    if _has_key(own.settings):
        return ResolvedMode("online", "logged in", by_default=True)
    missing = f"not logged in to {own.settings.base_url}; `wandb login` or WANDB_API_KEY logs in"
    return ResolvedMode("offline", missing, by_default=True)


def logged_in() -> bool:
    """Whether there is a key for the configured server, in the environment, W&B's settings or the netrc file."""
    return _has_key(_own_settings().settings)


def _own_settings() -> _Own:
    """Read what decides; no other setting of W&B's, which may be invalid without being of any concern here.

    Raises:
        ValueError: naming an invalid setting and where it stands.
    """
    import wandb

    settings, source = wandb.Settings(silent=True), None
    for path in _files(settings):
        stored = _read(path)
        for key in _KEYS:
            if key in stored:
                _set(settings, key, stored[key], f"{path}: {key}")
        source = f"{path} (mode={stored['mode']})" if "mode" in stored else source
    for name, key in zip(_VARIABLES, _KEYS, strict=True):
        if name in os.environ:
            _set(settings, key, os.environ[name], name)
    if "WANDB_MODE" in os.environ:
        source = f"WANDB_MODE={os.environ['WANDB_MODE']}"
    return _Own(settings, source)


def _files(settings: Settings) -> list[Path]:
    """The user's file, that of the current directory, and that of ``WANDB_DIR``, to which ``wandb offline`` writes."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    found = [user, Path(settings.settings_workspace)]
    if root := os.environ.get("WANDB_DIR"):
        settings = settings.model_copy(update={"root_dir": root})
        found.append(Path(settings.settings_workspace))
    return list(dict.fromkeys(found))


def _read(path: Path) -> dict[str, str]:
    """A settings file as W&B reads it."""
    from wandb.sdk.lib.settings_file import SettingsFiles

    return SettingsFiles(global_settings=None, local_settings=path).all()


def _set(settings: Settings, key: str, value: Any, told: str) -> None:
    try:
        setattr(settings, key, value)
    except Exception as error:  # pydantic's quotes the value, which may be a key; W&B raises others as well
        raise ValueError(f"{told}: {error.errors()[0]['msg'] if hasattr(error, 'errors') else 'not usable'}") from None


def _has_key(settings: Settings) -> bool:
    if settings.api_key or settings.identity_token_file:
        return True
    host = urlsplit(settings.base_url).hostname or ""
    try:
        keys = netrc.netrc(os.environ.get("NETRC"))
        return any(keys.authenticators(name) is not None for name in (_CLOUD if host in _CLOUD else (host,)))
    except (OSError, netrc.NetrcParseError):
        return False
