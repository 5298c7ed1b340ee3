"""From the ``tracker`` group to a tracker."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from afqmc.tracking.background import BackgroundTracker
from afqmc.tracking.base import NullTracker, Tracker
from afqmc.tracking.config import Service, TrackerConfig, WandbMode
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.tracking.wandb_session import preload
from afqmc.tracking.wandb_tracker import WandbTracker
from afqmc.utils.redaction import redacted, redacted_tree

log = logging.getLogger(__name__)

_IN_WORDS = ("name", "notes", "group", "tags", "job_type")  # of the config: what people write, and others read


def build_tracker(config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> Tracker:
    """The configured tracker. ``settings`` is the resolved config of the run, as plain containers.

    Neither the config nor what a person calls the run reaches the tracker with a secret in it.
    """
    if is_off(config):
        return NullTracker()
    try:
        preload()
        found = resolve_mode(config)
    except Exception as error:  # an installation may be broken in any way
        log.warning("W&B: cannot be imported (%s); the run goes on without it", error)
        return NullTracker()
    if found.warning:
        log.warning("W&B: %s", redacted(found.warning))
    if found.mode == "disabled":
        log.info("W&B: off: %s", redacted(found.reason))
        return NullTracker()
    config, settings = without_secrets(config), redacted_tree(settings)
    rescue = f"wandb sync {run_dir / 'wandb'}/*run-* sends what is missing"
    return BackgroundTracker(lambda: WandbTracker(config, settings, run_dir), rescue)


def is_off(config: TrackerConfig) -> bool:
    """Whether the config itself says that nothing is tracked."""
    return config.service is Service.none or config.mode is WandbMode.disabled


def without_secrets(config: TrackerConfig) -> TrackerConfig:
    """What a person calls the run, as others may read it."""
    return replace(config, **redacted_tree({name: getattr(config, name) for name in _IN_WORDS}))
