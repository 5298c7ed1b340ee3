"""What W&B calls a run: its id, which stays, and the group, name and tags of a sweep's jobs."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from afqmc.tracking.config import Service, TrackerConfig
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted_argument
from afqmc.utils.safe_files import SMALL, read_text

PRUNED = "pruned"  # tag, and status, of a run that a search gave up
SWEEP = "sweep"  # tag of a sweep's jobs

_ID = "wandb/id"
_LEGAL_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_LONGEST = 128  # signs of a name, as W&B's page shows it
_NOT_SETTINGS = ("resume", "sweep", "tracker")  # overrides that say nothing of what is trained


def with_sweep_metadata(config: TrackerConfig, sweep: Optional[str], overrides: Sequence[str]) -> TrackerConfig:
    """For a job of a sweep: in its group, named by what the job was told, with its tag; what is configured stays.

    A run that an agent of W&B starts is one too, in W&B's own sweep instead of a group.

    Args:
        config: As composed.
        sweep: The name of the sweep's directory; None outside of one.
        overrides: Of this job, as ``key=value``.

    Raises:
        InputError: for a sweep under an agent, which has named one run: all jobs would become that one.
    """
    by_agent = agent_run_id() is not None
    if sweep is None and not by_agent:
        return config
    if sweep is not None and by_agent and config.service is Service.wandb:
        raise InputError("--multirun: an agent of W&B runs one job at a time (WANDB_SWEEP_ID is set); leave -m out")
    return replace(
        config,
        group=sweep if config.group is None else config.group,
        name=name_from_overrides(overrides) if config.name is None else config.name,
        tags=config.tags if SWEEP in config.tags else [*config.tags, SWEEP],
    )


def name_from_overrides(overrides: Sequence[str]) -> Optional[str]:
    """Overrides as a name, ``lr=1e-05 seed=2``: no secrets, the keys at the top first; None where there are none."""
    told = [redacted_argument(override.lstrip("+")) for override in overrides]
    kept = [item for item in told if re.split(r"[.=]", item, maxsplit=1)[0] not in _NOT_SETTINGS]
    name = " ".join(sorted(kept, key=lambda item: "." in item.partition("=")[0]))
    return (name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}...") or None


def run_id(run_dir: Path) -> str:
    """The id of this directory's W&B run, the same each time that the run is gone on with.

    The agent of a W&B sweep has named the run before it begins, and W&B knows it by that name alone.
    """
    path = run_dir / _ID
    try:
        found = read_text(path, SMALL).strip()
    except (OSError, ValueError):
        found = ""
    wanted = agent_run_id() or (found if _LEGAL_ID.fullmatch(found) else secrets.token_hex(4))
    if wanted != found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{wanted}\n", encoding="utf-8")
    return wanted


def agent_run_id() -> Optional[str]:
    """The id that the agent of a W&B sweep gave the run, if one started it."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
