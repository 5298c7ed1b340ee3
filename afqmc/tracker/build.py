"""From the ``tracker`` group to a tracker."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from afqmc.tracker.background import BackgroundTracker
from afqmc.tracker.config import Service, TrackerConfig, WandbMode
from afqmc.tracker.protocol import NullTracker, Tracker
from afqmc.tracker.wandb import WandbTracker, preload

log = logging.getLogger(__name__)


def build_tracker(config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> Tracker:
    """The configured tracker. ``settings`` is the resolved config of the run, as plain containers."""
    if (
        config.service is Service.none
        or config.mode is WandbMode.disabled
        or os.environ.get("WANDB_MODE") == "disabled"
    ):
        return NullTracker()
    try:
        preload()
    except Exception as error:  # an installation may be broken in any way
        log.warning("W&B: cannot be imported (%s); the run goes on without it", error)
        return NullTracker()
    rescue = f"wandb sync {run_dir / 'wandb'}/*run-* sends what is missing"
    return BackgroundTracker(lambda: WandbTracker(config, settings, run_dir), rescue)
