"""What is no training, as a W&B run of its own: tables, figures and files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote as quoted
from typing import Any

from afqmc.errors import first_line
from afqmc.tracker.config import TrackerConfig
from afqmc.tracker.mode import resolve_mode
from afqmc.tracker.session import NotSentError, begin, refuse_disabled


@dataclass(frozen=True)
class Table:
    """Columns, and rows of texts, numbers and None; a column holds one kind."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Upload:
    """One W&B run.

    Attributes:
        config: Its project, group, name and kind.
        settings: Its config, as plain containers.
        tables: By key.
        summary: Figures by key.
        artifact: The name of the artifact that holds ``files``.
        files: Texts by file name.
    """

    config: TrackerConfig
    settings: dict[str, Any]
    tables: Mapping[str, Table]
    summary: dict[str, Any]
    artifact: str
    files: Mapping[str, str]


def upload(content: Upload) -> str:
    """Send it, or keep it in W&B's offline files, in ``WANDB_DIR`` or here.

    Returns:
        Its address; offline, the command that sends it later.

    Raises:
        NotSentError: when it was to go online and did not, or W&B failed at it.
    """
    refuse_disabled()
    directory = Path(os.environ.get("WANDB_DIR") or ".")
    try:
        run, is_online = begin(content.config, content.settings, directory, secrets.token_hex(4))
        code = 1
        try:
            _log(run, content)
            code = 0
        finally:
            run.finish(exit_code=code)
    except Exception as error:  # the library may raise anything
        raise NotSentError(first_line(error)) from error
    if is_online:
        return str(run.url)
    kept = f"offline; to send it later: wandb sync {quoted(str(Path(run.dir).parent))}"
    if resolve_mode(content.config).mode == "online":
        raise NotSentError(kept)
    return kept


def _log(run: Any, content: Upload) -> None:
    import wandb

    tables = {key: wandb.Table(list(table.columns), [*map(list, table.rows)]) for key, table in content.tables.items()}
    run.log(tables)
    run.summary.update(content.summary)
    artifact = wandb.Artifact(content.artifact, type=str(content.config.job_type))
    for name, text in content.files.items():
        with artifact.new_file(name, encoding="utf-8") as file:
            file.write(text)
    run.log_artifact(artifact)
