"""The run directory: what lies where in it, and when it counts as complete."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from afqmc.utils import safe_files
from afqmc.utils.environment import changed_fields, collect_environment
from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import locked
from afqmc.utils.files import read_json, write_json, write_text
from afqmc.utils.redaction import redacted_tree

_OWN_FILES = (
    "config.yaml", "environment.json", "metrics.jsonl", "status.json", "summary.json", "run.log", ".lock",
    "checkpoints", ".hydra", "logs", "wandb",
    "sweep.json", "results.csv", "results.jsonl", "multirun.yaml", ".conf", ".study",
)  # fmt: skip


class Status(Enum):
    """What became of a run; ``summary.json`` is there if and only if it is completed."""

    running = "running"
    completed = "completed"
    interrupted = "interrupted"
    failed = "failed"
    cancelled = "cancelled"  # by a person, in the queue of a cluster; it can be gone on with
    pruned = "pruned"  # a search saw that it would not be among the best
    refused = "refused"  # its input was wrong, before the first step; the directory may be used again


@dataclass(frozen=True)
class RunDir:
    """Paths and plain files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """The best weights."""
        return self.path / "checkpoints" / "best"

    @property
    def summary(self) -> Path:
        """The final figures."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """All weights and states."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """A row an event."""
        return self.path / "metrics.jsonl"

    def locked(self) -> AbstractContextManager[None]:
        """Alone in here: the lock ends with its process.

        Raises:
            InputError: on entering, when another process is at this run.
        """
        return locked(self.path, "run")

    def read_status(self) -> dict[str, Any]:
        """What status.json says; empty where there is none."""
        return read_json(self.path / "status.json")

    def holds_run(self) -> bool:
        """Whether a run lives here already; one that was refused does not."""
        return self.config.exists() and self.read_status().get("status") != Status.refused.value

    def ensure_empty(self) -> None:
        """Never two runs in one directory.

        Raises:
            InputError: when there is one.
        """
        if self.holds_run():
            raise InputError(
                f"{self.path}: already holds a run; resume=DIR goes on with it, another hydra.run.dir starts one"
            )

    def own_files(self) -> list[Path]:
        """Files and directories that a run or a sweep writes here, whether they are there or not."""
        names = _OWN_FILES + (("predictions",) if self.config.exists() else ())  # a sweep's are those of an ensemble
        return [self.path / name for name in names]

    def ensure_inside(self, path: Path, key: str) -> None:
        """What is named as inside the run must be inside: a link in the run of a stranger may lead to a person's files.

        Raises:
            InputError: naming ``key`` and where the path leads.
        """
        named = Path(os.path.abspath(path))
        if named.is_relative_to(os.path.abspath(self.path)) and not named.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"{key} {path}: a link leads out of {self.path}, to {named.resolve()}; name that instead")

    def weights_path(self, step: int) -> Path:
        """Weights kept of the evaluation after ``step``."""
        return self.path / "checkpoints" / f"step-{step}"

    def saved_weights(self, past: int = 0) -> list[Path]:
        """The kept ``step-N`` directories of steps past the given one, oldest first."""
        found = {int(item.name.removeprefix("step-")): item for item in self.checkpoints.glob("step-*")}
        return [found[step] for step in sorted(found) if step > past]

    def write_status(self, status: Status, **more: Any) -> None:
        """Replace status.json; what was raised is told without the secrets in it."""
        told = {"status": status.value, "pid": os.getpid(), "time": time.time(), **redacted_tree(more)}
        write_json(self.path / "status.json", told)

    def reject_escaping_links(self, everywhere: bool = True) -> None:
        """Check an existing directory before anything is written in it: it may come from an untrusted source.

        Args:
            everywhere: Check every file in it, and not only those that a run writes.

        Raises:
            InputError: naming links that lead out of it, and what is neither a file nor a directory.
        """
        parts = None if everywhere else [*self.own_files(), self.path / "console.log", self.path / "predictions"]
        safe_files.refuse_special(self.path, parts)

    def read_summary(self) -> dict[str, Any]:
        """The final figures of a run that is complete.

        Raises:
            InputError: when they cannot be read.
        """
        try:
            return dict(safe_files.read_json(self.summary))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            told = f"{self.summary}: not readable ({error}); remove it, and resume={self.path} writes it again"
            raise InputError(told) from error

    def write_environment(self, hardware: dict[str, Any], resumed: bool = False) -> list[str]:
        """Where and by what this run was made; no environment variable and no secret is ever written.

        Returns:
            For a run that goes on, what is not as it was at its start: it may then not go on bit for bit.
        """
        now = collect_environment(hardware)
        path = self.path / "environment.json"
        before = read_json(path) if resumed else {}
        if not before:
            write_json(path, now)
            return []
        before["resumed"] = [*before.get("resumed", []), {"time": time.time(), **now}]
        write_json(path, before)
        return list(changed_fields(before, now))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """The last file of a run: from now on it counts as complete."""
        write_json(self.summary, summary)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl, on the disk for certain."""
        if not self.metrics.exists():
            return 0
        with self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def truncate_metrics(self, size: int) -> None:
        """Drop the rows past a checkpoint: their steps are taken again.

        Raises:
            InputError: when rows from before it are missing.
        """
        if size == 0:
            self.metrics.unlink(missing_ok=True)
            return
        there = self.metrics.stat().st_size if self.metrics.exists() else 0
        if there < size:
            raise InputError(f"{self.metrics}: has lost rows ({there} bytes; the checkpoint was made at {size})")
        os.truncate(self.metrics, size)

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """predictions/<split>.jsonl, whole."""
        write_text(
            self.path / "predictions" / f"{split}.jsonl",
            "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows),
        )


@dataclass(frozen=True)
class NullRunDir(RunDir):
    """The run directory for ranks other than 0: rank 0 alone reads and writes it, and it may be on another host."""

    def write_environment(self, hardware: dict[str, Any], resumed: bool = False) -> list[str]:
        """Do nothing."""
        return []

    def write_status(self, status: Status, **more: Any) -> None:
        """Do nothing."""

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Do nothing."""

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def metrics_size(self) -> int:
        """Return 0."""
        return 0

    def truncate_metrics(self, size: int) -> None:
        """Do nothing."""

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """Do nothing."""

    def saved_weights(self, past: int = 0) -> list[Path]:
        """Return nothing."""
        return []
