"""The ``tracker`` config group."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.utils.fields import config_field


class Backend(Enum):
    """The available trackers."""

    wandb = "wandb"
    none = "none"


class WandbMode(Enum):
    """Whether a W&B run is sent to the server, kept in local files, or not made."""

    auto = "auto"  # by W&B's own settings; without any, online if logged in, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class TrackerConfig:
    """The ``tracker`` group; names as in ``wandb.init``."""

    backend: Backend = config_field(Backend.wandb, "wandb or none")
    mode: WandbMode = config_field(WandbMode.auto, "auto, online, offline or disabled")
    project: str = config_field("afqmc", "W&B project")
    entity: Optional[str] = config_field(None, "W&B user or team")
    group: Optional[str] = config_field(None, "group of runs; null: the name of the sweep, if any")
    job_type: Optional[str] = config_field("train", "type of the run, to filter by")
    tags: list[str] = config_field([], "tags of the run")
    name: Optional[str] = config_field(None, "name of the run; null: the name of its directory")
    notes: Optional[str] = config_field(None, "notes on the run")
    log_model: bool = config_field(False, "upload the best weights as an artifact")
