"""Runs that W&B has not got yet: sent from its own offline files, or rebuilt from ours where those are lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from afqmc.tracking.base import Report
from afqmc.tracking.config import TrackerConfig, WandbMode
from afqmc.tracking.wandb_session import NotSentError
from afqmc.tracking.wandb_tracker import WandbTracker
from afqmc.utils.redaction import redacted


@dataclass(frozen=True)
class FinishedRun:
    """A run that is over, as its own files tell it.

    Attributes:
        config: Its tracker's, without secrets; ``mode`` says where the rebuilt run goes.
        settings: Its resolved config, as plain containers without secrets.
        rows: What the tracker was told, in order; a row with a known time has it as ``_timestamp``, in seconds.
        best: The figures of the best evaluation, if there was one.
        report: Charts of the best weights, if there are any.
        exit_code: 0 when it went well.
        lacking: What its files do not tell any more, as the end of a sentence.
    """

    config: TrackerConfig
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    best: Optional[dict[str, Any]]
    report: Optional[Report]
    exit_code: int
    lacking: str = ""


def files(run_dir: Path) -> list[Path]:
    """W&B's own record of the run, oldest first; several where it was gone on with."""
    found = (run_dir / "wandb").glob("*run-*/run-*.wandb")
    return sorted(found, key=lambda path: path.parent.name.partition("run-")[2])


def unsent(run_dir: Path) -> list[Path]:
    """Those made offline that ``wandb sync`` has not sent."""
    return [path for path in files(run_dir) if path.parent.name.startswith("offline-") and not _mark(path).exists()]


def sync(paths: list[Path]) -> None:
    """Send the offline files of one run; ``wandb sync`` takes them in order of their beginnings.

    Raises:
        NotSentError: with what ``wandb sync`` said last; for a link among what is sent, which may lead to any file.
    """
    for path in (file for one in paths for file in (one.parent / "files").rglob("*")):
        if path.is_symlink():
            raise NotSentError(f"{path}: a link, and what it leads to would be sent; remove it")
    command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(path.parent) for path in paths)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if not all(_mark(path).exists() for path in paths):  # its exit code says nothing of the sending
        said = [line for line in done.stderr.splitlines() if line.removeprefix("wandb: ").removeprefix("ERROR").strip()]
        raise NotSentError(redacted(f"wandb sync: {said[-1] if said else f'exit code {done.returncode}'}"))


def mark_sent(paths: list[Path]) -> None:
    """Where ``wandb sync`` could not send all of them, and the rest has been sent otherwise."""
    for path in paths:
        _mark(path).touch()


def replay(run_dir: Path, past: FinishedRun) -> None:
    """Tell W&B of a run as the run itself would have, under the same id; what the server knows is not told again.

    Args:
        run_dir: Where its id is, and where W&B's files go.
        past: The run; its config's mode, online or offline, says where to.

    Raises:
        NotSentError: when it was to go online and did not.
    """
    before = _sessions(run_dir)
    try:
        tracker = WandbTracker(past.config, past.settings, run_dir)
        try:
            if past.config.mode is WandbMode.online and not tracker.is_online:
                raise NotSentError("W&B cannot be reached")
            _tell(tracker, past)
        finally:
            tracker.finish(past.exit_code)
    except BaseException:
        for path in _sessions(run_dir) - before:  # or it would pass for sent, the next time
            shutil.rmtree(path, ignore_errors=True)
        raise


def _tell(tracker: WandbTracker, past: FinishedRun) -> None:
    known = tracker.known_rows  # one more than ours where the charts are there too
    for row in past.rows[known:]:
        tracker.log(row)
    if past.best is not None:
        tracker.summary(past.best)
    if past.report is not None and known <= len(past.rows):
        tracker.report(past.report)


def _sessions(run_dir: Path) -> set[Path]:
    return set((run_dir / "wandb").glob("*run-*"))


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.synced")  # which ``wandb sync`` leaves beside a file that it has sent
