"""The ``tracker`` group, and where its figures go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from afqmc.utils.fields import knob


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
