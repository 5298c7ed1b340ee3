"""Send finished runs to W&B: from its own offline files, or replayed from the run directory if those are lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afqmc.tracking.base import DevPredictions
from afqmc.tracking.config import TrackerConfig, WandbMode
from afqmc.tracking.wandb_session import NotSentError
from afqmc.tracking.wandb_tracker import WandbTracker
from afqmc.utils.redaction import redacted


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, read back from its own files.

    Attributes:
        config: Its ``tracker`` group without secrets; ``mode`` is the mode of the replayed run.
        settings: Its resolved config, as plain containers without secrets.
        rows: The logged rows, in order. The time of a row, if known, is its ``_timestamp``, in seconds.
        best: The metrics of the best evaluation, if there was one.
        report: The report on the best weights, if it can be rebuilt.
        exit_code: 0 if the run was completed or pruned.
        lacking: What could not be rebuilt, as the end of a message.
    """

    config: TrackerConfig
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    best: dict[str, Any] | None
    report: DevPredictions | None
    exit_code: int
    lacking: str = ""


def files(run_dir: Path) -> list[Path]:
    """Return W&B's own files of the run, oldest first; there is one per time that the run was started or resumed."""
    paths = (run_dir / "wandb").glob("*run-*/run-*.wandb")
    return sorted(paths, key=lambda path: path.parent.name.partition("run-")[2])


def unsent(run_dir: Path) -> list[Path]:
    """Return the offline files of the run that ``wandb sync`` has not sent yet."""
    return [path for path in files(run_dir) if path.parent.name.startswith("offline-") and not _marker(path).exists()]


def sync(paths: list[Path]) -> None:
    """Send the offline files of one run with ``wandb sync``, oldest first.

    Raises:
        NotSentError: with the last message of ``wandb sync``, or for a symbolic link, whose target would be sent.
    """
    for link in (file for path in paths for file in (path.parent / "files").rglob("*") if file.is_symlink()):
        raise NotSentError(f"{link}: a link, whose target would be sent; remove it")
    command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(path.parent) for path in paths)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if not all(_marker(path).exists() for path in paths):  # its exit code is 0 even if nothing was sent
        lines = [
            line for line in done.stderr.splitlines() if line.removeprefix("wandb: ").removeprefix("ERROR").strip()
        ]
        raise NotSentError(redacted(f"wandb sync: {lines[-1] if lines else f'exit code {done.returncode}'}"))


def mark_sent(paths: list[Path]) -> None:
    """Mark files as sent, after the rest of a partly sent run has been replayed."""
    for path in paths:
        _marker(path).touch()


def replay(run_dir: Path, past: FinishedRun) -> None:
    """Log a finished run to W&B under its own id, as the run itself would have; rows that the server has are skipped.

    Args:
        run_dir: The run directory, for the id and W&B's files.
        past: The run; its config says whether to replay it online or offline.

    Raises:
        NotSentError: when it should be online and the server is unreachable.
    """
    before = _sessions(run_dir)
    try:
        tracker = WandbTracker(past.config, past.settings, run_dir)
        try:
            if past.config.mode is WandbMode.online and not tracker.is_online:
                raise NotSentError("W&B is unreachable")
            _log(tracker, past)
        finally:
            tracker.finish(past.exit_code)
    except BaseException:
        for path in _sessions(run_dir) - before:  # otherwise the next attempt would take it for sent
            shutil.rmtree(path, ignore_errors=True)
        raise


def _log(tracker: WandbTracker, past: FinishedRun) -> None:
    sent = tracker.known_rows  # one more than there are rows if the charts have been sent as well
    for row in past.rows[sent:]:
        tracker.log(row)
    if past.best is not None:
        tracker.log_summary(past.best)
    if past.report is not None and sent <= len(past.rows):
        tracker.report(past.report)


def _sessions(run_dir: Path) -> set[Path]:
    return set((run_dir / "wandb").glob("*run-*"))


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.synced")  # as ``wandb sync`` names it
