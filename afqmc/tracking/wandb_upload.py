"""Upload tables, metrics and files as a separate W&B run."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote as quoted
from tempfile import TemporaryDirectory
from typing import Any

from afqmc.tracking.config import TrackerConfig
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.tracking.wandb_session import NotSentError, init_run, refuse_disabled
from afqmc.utils.errors import first_line


@dataclass(frozen=True)
class Table:
    """Columns and rows of texts, numbers and None; the values of a column have the same type."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Upload:
    """The content of one W&B run.

    Attributes:
        config: Project, group, name and job type of the run.
        settings: The config of the run, as plain containers.
        tables: Tables by key.
        summary: Metrics by key.
        artifact: The name of the artifact with the ``files``.
        files: Text files by name.
    """

    config: TrackerConfig
    settings: dict[str, Any]
    tables: Mapping[str, Table]
    summary: dict[str, Any]
    artifact: str
    files: Mapping[str, str]


def upload(content: Upload) -> str:
    """Send the content to W&B, or write W&B's offline files to ``WANDB_DIR`` or the current directory.

    No files are left after sending.

    Returns:
        The URL of the run, or offline the command that sends it later.

    Raises:
        NotSentError: when it should be online and the server is unreachable, or W&B fails.
    """
    refuse_disabled()
    wandb_dir = os.environ.get("WANDB_DIR")
    with TemporaryDirectory(prefix="afqmc-wandb-", ignore_cleanup_errors=True) as scratch:
        try:
            run, is_online = init_run(
                content.config, content.settings, Path(wandb_dir or scratch), secrets.token_hex(4)
            )
            code = 1
            try:
                _log(run, content)
                code = 0
            finally:
                run.finish(exit_code=code)
            if is_online:
                return str(run.url)
            files = Path(run.dir).parent
            kept = files if wandb_dir else _move(files, Path("wandb"))
        except Exception as error:  # wandb may raise anything
            raise NotSentError(first_line(error)) from error
    message = f"offline; to send it later: wandb sync {quoted(str(kept))}"
    if resolve_mode(content.config).mode == "online":
        raise NotSentError(message)
    return message


def _move(files: Path, target: Path) -> Path:
    """Move the offline files of a run out of the temporary directory."""
    target.mkdir(exist_ok=True)
    return Path(shutil.move(files, target / files.name))


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
