"""From the ``tracker`` group to a tracker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from afqmc.tracker.background import BackgroundTracker
from afqmc.tracker.config import Service, TrackerConfig, WandbMode
from afqmc.tracker.protocol import NullTracker, Tracker
from afqmc.tracker.wandb import WandbTracker


def build_tracker(config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> Tracker:
    """The configured tracker. ``settings`` is the resolved config of the run, as plain containers."""
    if (
        config.service is Service.none
        or config.mode is WandbMode.disabled
        or os.environ.get("WANDB_MODE") == "disabled"
    ):
        return NullTracker()
    return BackgroundTracker(lambda: WandbTracker(config, settings, run_dir))
