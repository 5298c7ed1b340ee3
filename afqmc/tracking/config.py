"""The ``tracker`` group, and where its figures go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.utils.fields import config_field


class Service(Enum):
    """Trackers there are."""

    wandb = "wandb"
    none = "none"


class WandbMode(Enum):
    """Where W&B's figures go."""

    auto = "auto"  # as W&B's own settings say; without any, online when logged in, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class TrackerConfig:
    """The ``tracker`` group; names as in ``wandb.init``."""

    service: Service = config_field(Service.wandb, "wandb or none")
    mode: WandbMode = config_field(WandbMode.auto, "auto, online, offline or disabled")
    project: str = config_field("afqmc", "W&B project")
    entity: Optional[str] = config_field(None, "W&B user or team")
    group: Optional[str] = config_field(None, "runs shown together; null takes the directory of a sweep")
    job_type: Optional[str] = config_field("train", "kind of run")
    tags: list[str] = config_field([], "labels")
    name: Optional[str] = config_field(None, "the run's name; null takes its directory's")
    notes: Optional[str] = config_field(None, "a remark")
    log_model: bool = config_field(False, "upload the best weights as an artifact")
