"""What a run goes on from: when it is saved, what becomes of a save that fails, and how a run is put back."""

from __future__ import annotations

import logging
import time
from typing import Any

from afqmc.checkpoint.store import BesideStore, Store
from afqmc.run_dir import BesideRunDir, RunDir
from afqmc.training.config import SaveFailure, TrainerConfig
from afqmc.training.state import Durations, Progress
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

_FORMAT = 2


class Checkpointer:
    """The checkpoints of one run.

    Args:
        run_dir: Where.
        config: Of the trainer.
        durations: Of the run.
        fingerprint: Of its data: others are not gone on with.
    """

    def __init__(self, run_dir: RunDir, config: TrainerConfig, durations: Durations, fingerprint: str) -> None:
        self.run_dir, self.config, self.durations, self.fingerprint = run_dir, config, durations, fingerprint
        kind = BesideStore if isinstance(run_dir, BesideRunDir) else Store
        self.store = kind(run_dir.checkpoints, run_dir.best)
        self._clock = time.monotonic()
        self._saved: tuple[int, bool] | None = None
        self.lenient = config.on_save_failure is SaveFailure.warn

    def holds(self, progress: Progress) -> bool:
        """Whether this very moment is saved, or being saved."""
        return self._saved == (progress.step, progress.evaluated)

    def is_due(self, progress: Progress) -> bool:
        """Whether it is time: each epoch's end, the end, every ``save_steps``, ``save_minutes`` after the last one.

        Where an evaluation is to come, after it: an interruption of it is saved as such.
        """
        if not progress.evaluated or self.holds(progress):
            return False
        step, steps, minutes = progress.step, self.config.save_steps, self.config.save_minutes
        late = minutes is not None and time.monotonic() - self._clock >= 60 * minutes
        regular = steps is not None and step % steps == 0
        return late or regular or progress.stopped or self.durations.is_time(step, self.durations.epoch)

    def save(self, state: dict[str, Any], progress: Progress) -> None:
        """Begin to write a checkpoint, once the one before it is written.

        Raises:
            OSError: or what else kept the one before it from being written, where the run is to stop then.
        """
        self.settle()
        self._saved, self._clock = (progress.step, progress.evaluated), time.monotonic()
        whole = {"format": _FORMAT, "data": self.fingerprint, "total": self.durations.total, **state}
        try:
            self.store.save(whole | {"metrics_bytes": self.run_dir.metrics_size()})
        except OSError as error:
            self._failed(error)

    def look(self) -> None:
        """Say so, or stop, if the checkpoint that was being written could not be."""
        if not self.store.is_writing:
            self.settle()

    def settle(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            OSError: or what else kept it from being written, where the run is to stop then.
        """
        try:
            self.store.wait()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._saved = None
        there = "the one before it is still there" if self.store.last.exists() else "there is none yet"
        told = f"checkpoints/last could not be written: {error}; {there}"
        if not self.lenient:
            raise RuntimeError(f"{told} (trainer.on_save_failure=stop)") from error
        log.warning("%s", told)

    def load(self) -> dict[str, Any] | None:
        """The newest sound checkpoint, None where there is none; metrics.jsonl is cut back to it.

        Raises:
            InputError: when it is of other data, all are damaged, or a complete run has none.
        """
        if isinstance(self.store, BesideStore):
            return None  # the main process reads it, and hands it round
        state = self.store.load(lambda told: log.warning("%s; the one before it is used, if there is one", told))
        if state is None and self.run_dir.summary.exists():
            raise InputError(f"{self.run_dir.path}: complete, and has no checkpoint to go on from (checkpoints/last)")
        if state is None:
            self.store.clear()
            self.run_dir.cut_metrics(0)
            return None
        if state.get("format") != _FORMAT:
            raise InputError(f"{self.store.last}: format {state.get('format')}; this version reads {_FORMAT}")
        if state["data"] != self.fingerprint:
            raise InputError(f"{self.run_dir.path}: data or tokenizer are not those that this run began with")
        self.run_dir.cut_metrics(state["metrics_bytes"])
        self._saved = (state["training"]["progress"]["step"], state["training"]["progress"]["evaluated"])
        return dict(state)

    def finish(self) -> None:
        """The run is complete: its last checkpoint is enough, to make it longer."""
        self.settle()
        self.store.drop_previous()
