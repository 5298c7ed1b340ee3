"""Check the ``tracker`` config group with W&B's own settings class before a run starts."""

from __future__ import annotations

from typing import Any

from afqmc.tracking.config import TrackerConfig
from afqmc.tracking.factory import is_off, without_secrets
from afqmc.tracking.run_names import agent_run_id
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.utils.errors import InputError, elide, first_line

_SETTINGS = {  # our key -> the field of wandb.Settings
    "project": "project",
    "entity": "entity",
    "group": "run_group",
    "job_type": "run_job_type",
    "tags": "run_tags",
    "name": "run_name",
    "notes": "run_notes",
}


def check_tracker(config: TrackerConfig) -> None:
    """Check the values that W&B would check when the run starts, without network access.

    Raises:
        InputError: naming the key, with W&B's own reason.
    """
    if is_off(config):
        return
    try:
        if resolve_mode(config).mode == "disabled":
            return
    except Exception:  # a broken installation; the run itself warns about it
        return
    sent = without_secrets(config)
    for key, setting in _SETTINGS.items():
        _check_setting(f"tracker.{key}", setting, getattr(sent, key))
    if identity := agent_run_id():
        _check_setting("WANDB_RUN_ID", "run_id", identity)


def _check_setting(key: str, setting: str, value: Any) -> None:
    import wandb

    try:
        wandb.Settings(**{setting: value})
    except Exception as error:  # pydantic's, or W&B's own
        raise InputError(f"{key}={elide(str(value))}: invalid for W&B: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return W&B's message without the text that pydantic adds."""
    errors = getattr(error, "errors", None)
    message = str(errors()[0]["msg"]) if callable(errors) else first_line(error)
    return elide(message.removeprefix("Value error, "))
