"""What is no training, as a W&B run of its own: tables, figures and files."""

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
    """Send it, or keep it in W&B's offline files, in ``WANDB_DIR`` or here; what was sent leaves no files.

    Returns:
        Its address; offline, the command that sends it later.

    Raises:
        NotSentError: when it was to go online and did not, or W&B failed at it.
    """
    refuse_disabled()
    named = os.environ.get("WANDB_DIR")
    with TemporaryDirectory(prefix="afqmc-wandb-", ignore_cleanup_errors=True) as scratch:
        try:
            run, is_online = init_run(content.config, content.settings, Path(named or scratch), secrets.token_hex(4))
            code = 1
            try:
                _log(run, content)
                code = 0
            finally:
                run.finish(exit_code=code)
            if is_online:
                return str(run.url)
            files = Path(run.dir).parent
            kept = files if named else _moved(files, Path("wandb"))
        except Exception as error:  # the library may raise anything
            raise NotSentError(first_line(error)) from error
    told = f"offline; to send it later: wandb sync {quoted(str(kept))}"
    if resolve_mode(content.config).mode == "online":
        raise NotSentError(told)
    return told


def _moved(files: Path, target: Path) -> Path:
    """Offline files of a run, out of the temporary directory."""
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
