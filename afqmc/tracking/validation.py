"""What W&B accepts of the ``tracker`` group, asked of W&B's own settings before a run begins."""

from __future__ import annotations

from typing import Any

from afqmc.tracking.config import TrackerConfig
from afqmc.tracking.factory import is_off, without_secrets
from afqmc.tracking.run_names import agent_run_id
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.utils.errors import InputError, elide, first_line

_SETTINGS = {  # what W&B calls our keys
    "project": "project",
    "entity": "entity",
    "group": "run_group",
    "job_type": "run_job_type",
    "tags": "run_tags",
    "name": "run_name",
    "notes": "run_notes",
}


def check_tracker(config: TrackerConfig) -> None:
    """Refuse values that W&B would refuse when the run begins; no network is used.

    Raises:
        InputError: naming the key and W&B's own reason.
    """
    if is_off(config):
        return
    try:
        if resolve_mode(config).mode == "disabled":
            return
    except Exception:  # of a broken installation, about which the run itself warns
        return
    sent = without_secrets(config)
    for key, setting in _SETTINGS.items():
        _ask(f"tracker.{key}", setting, getattr(sent, key))
    if identity := agent_run_id():
        _ask("WANDB_RUN_ID", "run_id", identity)


def _ask(key: str, setting: str, value: Any) -> None:
    import wandb

    try:
        wandb.Settings(**{setting: value})
    except Exception as error:  # pydantic's and W&B's own
        raise InputError(f"{key}={elide(str(value))}: W&B refuses this: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What W&B says, without the frame that pydantic puts round it."""
    told = getattr(error, "errors", None)
    said = str(told()[0]["msg"]) if callable(told) else first_line(error)
    return elide(said.removeprefix("Value error, "))
