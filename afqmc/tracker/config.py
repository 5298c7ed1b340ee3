"""The ``tracker`` group, and where its figures go."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from enum import Enum
from typing import Optional
from urllib.parse import urlsplit

from afqmc.knobs import knob

_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # W&B's own server: its name now, and before; one key for both


class Service(Enum):
    """Trackers there are."""

    wandb = "wandb"
    none = "none"


class WandbMode(Enum):
    """Where W&B's figures go."""

    auto = "auto"  # online when logged in, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class TrackerConfig:
    """The ``tracker`` group; names as in ``wandb.init``."""

    service: Service = knob(Service.wandb, "wandb or none")
    mode: WandbMode = knob(WandbMode.auto, "auto, online, offline or disabled")
    project: str = knob("afqmc", "W&B project")
    entity: Optional[str] = knob(None, "W&B user or team")
    group: Optional[str] = knob(None, "runs shown together; null takes the directory of a sweep")
    job_type: Optional[str] = knob("train", "kind of run")
    tags: list[str] = knob([], "labels")
    name: Optional[str] = knob(None, "the run's name; null takes its directory's")
    notes: Optional[str] = knob(None, "a remark")
    log_model: bool = knob(False, "upload the best weights as an artifact")


def resolve_mode(config: TrackerConfig) -> str:
    """``online`` or ``offline``: as configured, as ``WANDB_MODE`` says, or by whether a key is to be had."""
    if config.mode is not WandbMode.auto:
        return str(config.mode.value)
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline"):
        return asked
    return "online" if logged_in() else "offline"


def logged_in() -> bool:
    """Whether a key is in the environment or, for the configured host, in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", f"https://{_CLOUD[0]}")).hostname or ""
    try:
        keys = netrc.netrc(os.environ.get("NETRC"))
        return any(keys.authenticators(name) is not None for name in (_CLOUD if host in _CLOUD else (host,)))
    except (OSError, netrc.NetrcParseError):
        return False
