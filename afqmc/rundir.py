"""The run directory: what lies where in it, and when it counts as complete."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from afqmc.errors import InputError

_PACKAGES = (
    "afqmc",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "hydra-core",
    "scikit-learn",
    "numpy",
    "wandb",
)


class Status(Enum):
    """What became of a run; ``summary.json`` is there if and only if it is completed."""

    running = "running"
    completed = "completed"
    interrupted = "interrupted"
    failed = "failed"
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

    def is_occupied(self) -> bool:
        """Whether a run lives here already; one that was refused does not."""
        status = self.path / "status.json"
        if not status.exists():
            return self.config.exists()
        try:
            found = json.loads(status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return True
        return not (isinstance(found, dict) and found.get("status") == Status.refused.value)

    def refuse_occupied(self) -> None:
        """Never two runs in one directory.

        Raises:
            InputError: when there is one.
        """
        if self.is_occupied():
            raise InputError(f"{self.path}: already holds a run; choose another hydra.run.dir, or move that run away")

    def step_weights(self, step: int) -> Path:
        """Weights kept of the evaluation after ``step``."""
        return self.path / "checkpoints" / f"step-{step}"

    def kept_steps(self) -> list[Path]:
        """All kept ``step-N`` directories, oldest first."""
        found = (self.path / "checkpoints").glob("step-*")
        return sorted(found, key=lambda item: int(item.name.removeprefix("step-")))

    def write_status(self, status: Status, **more: Any) -> None:
        """Replace status.json."""
        write_json(self.path / "status.json", {"status": status.value, "pid": os.getpid(), "time": time.time(), **more})

    def write_environment(self, hardware: dict[str, Any]) -> None:
        """Where and by what this run was made; no environment variable is ever written."""
        write_json(
            self.path / "environment.json",
            {
                "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
                "directory": os.getcwd(),
                "git": git_state(),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": {name: version for name in _PACKAGES if (version := _version(name))},
                "hardware": hardware,
            },
        )

    def write_summary(self, summary: dict[str, Any]) -> None:
        """The last file of a run: from now on it counts as complete."""
        write_json(self.summary, summary)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """predictions/<split>.jsonl, whole."""
        write_text(
            self.path / "predictions" / f"{split}.jsonl",
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        )


def write_text(path: Path, text: str) -> None:
    r"""A whole text; a byte of a file name that is no UTF-8 is written as ``\udcff``, which is how JSON spells it."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, then rename: a file under its final name is whole. A pipe or device is not replaced by a file."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    aside.replace(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON; numbers must be finite."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for every number that JSON cannot say."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def git_state() -> dict[str, str] | None:
    """Commit and a hash of the uncommitted changes of the checkout this package runs from, None outside one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, check=True, timeout=10).stdout

    try:
        if not git("ls-files", "--", str(here / "rundir.py")).strip():
            return None
        changes = git("diff", "HEAD")
        return {
            "commit": git("rev-parse", "HEAD").decode().strip(),
            "diff_sha256": sha256(changes).hexdigest() if changes else "",
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
