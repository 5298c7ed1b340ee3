"""Id of a W&B run, and group, name and tags of the jobs of a sweep."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from afqmc.tracking.config import Backend, TrackerConfig
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted_argument
from afqmc.utils.safe_files import SMALL, read_text

PRUNED = "pruned"  # tag and status of a run that a search stopped early
SWEEP = "sweep"  # tag of the jobs of a sweep

_ID = "wandb/id"
_VALID_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_MAX_NAME = 128  # characters that W&B shows
_NOT_SETTINGS = ("resume", "sweep", "tracker")  # overrides that do not change what is trained


def with_sweep_metadata(config: TrackerConfig, sweep: str | None, overrides: Sequence[str]) -> TrackerConfig:
    """Set group, name and tag of a sweep's job, except where the user configured them.

    A run started by a W&B agent counts as a job too; W&B's own sweep takes the place of the group.

    Args:
        config: The composed ``tracker`` group.
        sweep: The name of the sweep's directory; None for a single run.
        overrides: The job's overrides, as ``key=value``.

    Raises:
        InputError: for a sweep under a W&B agent, which gives a single run id: all jobs would become the same run.
    """
    has_agent = agent_run_id() is not None
    if sweep is None and not has_agent:
        return config
    if sweep is not None and has_agent and config.backend is Backend.wandb:
        raise InputError("--multirun: a W&B agent runs one job at a time (WANDB_SWEEP_ID is set); leave -m out")
    return replace(
        config,
        group=sweep if config.group is None else config.group,
        name=name_from_overrides(overrides) if config.name is None else config.name,
        tags=config.tags if SWEEP in config.tags else [*config.tags, SWEEP],
    )


def name_from_overrides(overrides: Sequence[str]) -> str | None:
    """Return overrides as a name such as ``lr=1e-05 seed=2``, with top-level keys first; None if there are none."""
    redacted = [redacted_argument(override.lstrip("+")) for override in overrides]
    settings = [item for item in redacted if re.split(r"[.=]", item, maxsplit=1)[0] not in _NOT_SETTINGS]
    name = " ".join(sorted(settings, key=lambda item: "." in item.partition("=")[0]))
    return (name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}...") or None


def run_id(run_dir: Path) -> str:
    """Return the id of this directory's W&B run, which stays the same when the run is resumed.

    The id that a W&B agent has set takes precedence, since W&B's sweep knows the run by that id.
    """
    path = run_dir / _ID
    try:
        saved = read_text(path, SMALL).strip()
    except (OSError, ValueError):
        saved = ""
    identity = agent_run_id() or (saved if _VALID_ID.fullmatch(saved) else secrets.token_hex(4))
    if identity != saved:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{identity}\n", encoding="utf-8")
    return identity


def agent_run_id() -> str | None:
    """Return the run id set by a W&B sweep agent; None if no agent started this run."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
