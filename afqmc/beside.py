"""What the processes beside the main one have in place of what writes: the main process alone leaves files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afqmc.checkpoint.store import Store
from afqmc.rundir import RunDir, Status


@dataclass(frozen=True)
class BesideRunDir(RunDir):
    """The run directory as it is told to them, and may lie on another host: nothing is read or written there."""

    def write_environment(self, hardware: dict[str, Any], resumed: bool = False) -> list[str]:
        """The main process does."""
        return []

    def write_status(self, status: Status, **more: Any) -> None:
        """The main process does."""

    def write_summary(self, summary: dict[str, Any]) -> None:
        """The main process does."""

    def append_metrics(self, row: dict[str, Any]) -> None:
        """The main process does."""

    def metrics_size(self) -> int:
        """Of no file."""
        return 0

    def cut_metrics(self, size: int) -> None:
        """The main process does."""

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """The main process does."""

    def kept_steps(self, past: int = 0) -> list[Path]:
        """The main process has them."""
        return []


class BesideStore(Store):
    """Checkpoints that are saved elsewhere."""

    def save(self, state: Any) -> None:
        """The main process does."""

    def drop_previous(self) -> None:
        """The main process does."""
