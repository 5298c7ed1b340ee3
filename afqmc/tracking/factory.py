"""Build the tracker from the ``tracker`` config group."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from afqmc.tracking.background import BackgroundTracker
from afqmc.tracking.base import NullTracker, Tracker
from afqmc.tracking.config import Backend, TrackerConfig, WandbMode
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.tracking.wandb_session import preload
from afqmc.tracking.wandb_tracker import WandbTracker
from afqmc.utils.redaction import redacted, redacted_tree

log = logging.getLogger(__name__)

_FREE_TEXT = ("name", "notes", "group", "tags", "job_type")  # fields of TrackerConfig


def build_tracker(config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> Tracker:
    """Build the configured tracker. Secrets in its config and in the settings are redacted.

    Args:
        config: The ``tracker`` group.
        settings: The resolved config of the run, as plain containers.
        run_dir: The run directory; W&B's files go to its ``wandb`` directory.
    """
    if is_off(config):
        return NullTracker()
    try:
        preload()
        resolved = resolve_mode(config)
    except Exception as error:  # a broken installation may raise anything
        log.warning("W&B: cannot be imported (%s); the run continues without it", error)
        return NullTracker()
    if resolved.warning:
        log.warning("W&B: %s", redacted(resolved.warning))
    if resolved.mode == "disabled":
        log.info("W&B: off: %s", redacted(resolved.reason))
        return NullTracker()
    config, settings = without_secrets(config), redacted_tree(settings)
    recovery_hint = f"wandb sync {run_dir / 'wandb'}/*run-* sends the rest"
    return BackgroundTracker(lambda: WandbTracker(config, settings, run_dir), recovery_hint)


def is_off(config: TrackerConfig) -> bool:
    """Return whether the config turns tracking off."""
    return config.backend is Backend.none or config.mode is WandbMode.disabled


def without_secrets(config: TrackerConfig) -> TrackerConfig:
    """Return the config with secrets redacted in its free texts, such as notes and tags."""
    return replace(config, **redacted_tree({name: getattr(config, name) for name in _FREE_TEXT}))
