"""The run directory: the paths and files in it, and the status of its run."""

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
from afqmc.utils.files import read_json_or_empty, write_json, write_text
from afqmc.utils.redaction import redacted_tree

_OWN_FILES = (
    "config.yaml", "environment.json", "metrics.jsonl", "status.json", "summary.json", "run.log", ".lock",
    "checkpoints", "exports", ".hydra", "logs", "wandb",
    "sweep.json", "results.csv", "results.jsonl", "multirun.yaml", ".conf", ".study",
)  # fmt: skip


class Status(Enum):
    """The status of a run; ``summary.json`` exists if and only if it is ``completed``."""

    running = "running"
    completed = "completed"
    interrupted = "interrupted"
    failed = "failed"
    cancelled = "cancelled"  # by the user, in the queue of a cluster; it can be resumed
    pruned = "pruned"  # stopped early by a search, as unlikely to be among the best
    refused = "refused"  # invalid input, found before the first step; the directory may be used again


@dataclass(frozen=True)
class RunDir:
    """The directory of one run: paths, and its JSON and JSON-lines files."""

    path: Path

    @property
    def config(self) -> Path:
        """The file of the resolved config."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """The directory of the best weights."""
        return self.path / "checkpoints" / "best"

    @property
    def teacher_logits(self) -> Path:
        """The file of a teacher's logits for unlabelled pairs."""
        return self.path / "checkpoints" / "teacher.npy"

    @property
    def summary(self) -> Path:
        """The file of the final metrics."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The directory of all weights and training states."""
        return self.path / "checkpoints"

    @property
    def exports(self) -> Path:
        """The directory of exports of the best weights."""
        return self.path / "exports"

    @property
    def metrics(self) -> Path:
        """The file of logged metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    def locked(self) -> AbstractContextManager[None]:
        """Return a context manager that holds the exclusive lock of this directory.

        Raises:
            InputError: on entering, when another process holds it.
        """
        return locked(self.path, "run")

    def read_status(self) -> dict[str, Any]:
        """Return the content of status.json; empty if there is none."""
        return read_json_or_empty(self.path / "status.json")

    def holds_run(self) -> bool:
        """Return whether there is a run in this directory. A run that was refused does not count."""
        return self.config.exists() and self.read_status().get("status") != Status.refused.value

    def ensure_empty(self) -> None:
        """Check that there is no run in this directory yet.

        Raises:
            InputError: when there is one.
        """
        if self.holds_run():
            raise InputError(
                f"{self.path}: already holds a run; resume=DIR resumes it, another hydra.run.dir starts a new one"
            )

    def own_files(self) -> list[Path]:
        """Return the files and directories that a run or a sweep writes here, existing or not."""
        names = _OWN_FILES + (
            ("predictions",) if self.config.exists() else ()
        )  # those of a sweep belong to an ensemble
        return [self.path / name for name in names]

    def ensure_inside(self, path: Path, key: str) -> None:
        """Check that a path inside the run directory does not lead out of it: an untrusted run may contain links.

        Raises:
            InputError: naming ``key`` and the target of the link.
        """
        absolute = Path(os.path.abspath(path))
        target = absolute.resolve()
        if absolute.is_relative_to(os.path.abspath(self.path)) and not target.is_relative_to(self.path.resolve()):
            raise InputError(f"{key} {path}: a link leads out of {self.path}, to {target}; use that path instead")

    def weights_path(self, step: int) -> Path:
        """Return the directory of the weights that were evaluated after ``step``."""
        return self.path / "checkpoints" / f"step-{step}"

    def saved_weights(self, past: int = 0) -> list[Path]:
        """Return the ``step-N`` directories of steps after ``past``, oldest first."""
        by_step = {int(path.name.removeprefix("step-")): path for path in self.checkpoints.glob("step-*")}
        return [by_step[step] for step in sorted(by_step) if step > past]

    def write_status(self, status: Status, **more: Any) -> None:
        """Replace status.json. Secrets in ``more``, such as in an error message, are redacted."""
        content = {"status": status.value, "pid": os.getpid(), "time": time.time(), **redacted_tree(more)}
        write_json(self.path / "status.json", content)

    def reject_escaping_links(self, everywhere: bool = True) -> None:
        """Check a directory, which may be untrusted, before anything is written in it.

        Args:
            everywhere: Check every file in it, not only those that a run writes.

        Raises:
            InputError: naming links that lead out of it, and entries that are neither file nor directory.
        """
        paths = None if everywhere else [*self.own_files(), self.path / "console.log", self.path / "predictions"]
        safe_files.refuse_special(self.path, paths)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of a completed run.

        Raises:
            InputError: when it cannot be read.
        """
        try:
            return dict(safe_files.read_json(self.summary))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.summary}: not readable ({error}); remove it, and resume={self.path} writes it again"
            ) from error

    def write_environment(self, hardware: dict[str, Any], resumed: bool = False) -> list[str]:
        """Write environment.json, or append to it when resuming. It contains no environment variables and no secrets.

        Returns:
            When resuming, the changes since the start because of which the run may not continue bit for bit.
        """
        current = collect_environment(hardware)
        path = self.path / "environment.json"
        original = read_json_or_empty(path) if resumed else {}
        if not original:
            write_json(path, current)
            return []
        original["resumed"] = [*original.get("resumed", []), {"time": time.time(), **current}]
        write_json(path, original)
        return list(changed_fields(original, current))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, the last file of a run: it marks the run as complete."""
        write_json(self.summary, summary)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def metrics_size(self) -> int:
        """Flush metrics.jsonl to disk, and return its size in bytes."""
        if not self.metrics.exists():
            return 0
        with self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def truncate_metrics(self, size: int) -> None:
        """Cut metrics.jsonl to its size at a checkpoint, since later steps are repeated when resuming.

        Raises:
            InputError: when the file is shorter than that.
        """
        if size == 0:
            self.metrics.unlink(missing_ok=True)
            return
        current = self.metrics.stat().st_size if self.metrics.exists() else 0
        if current < size:
            raise InputError(f"{self.metrics}: has lost rows ({current} bytes; {size} at the time of the checkpoint)")
        os.truncate(self.metrics, size)

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write predictions/SPLIT.jsonl atomically."""
        write_text(
            self.path / "predictions" / f"{split}.jsonl",
            "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows),
        )


@dataclass(frozen=True)
class NullRunDir(RunDir):
    """A run directory for ranks other than 0, which write nothing. The directory may even be on another host."""

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
