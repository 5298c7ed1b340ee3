"""Save and load checkpoints/last, from which a run is resumed."""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any

from afqmc.checkpoint.store import CheckpointStore, NullCheckpointStore
from afqmc.run_dir import NullRunDir, RunDir
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.config import CheckpointConfig, SaveFailure
from afqmc.training.state import StepIntervals, TrainState
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

_FORMAT = 3


class ResumeCheckpoints(Callback):
    """Decides when to save a checkpoint, writes it in the background, and handles failures.

    Args:
        run_dir: Of the run.
        config: The ``checkpoint`` group.
        intervals: Of the training.
        fingerprint: Of data and tokenizer. A checkpoint with another fingerprint is refused.
    """

    def __init__(self, run_dir: RunDir, config: CheckpointConfig, intervals: StepIntervals, fingerprint: str) -> None:
        self.run_dir, self.config, self.intervals, self.fingerprint = run_dir, config, intervals, fingerprint
        store_class = NullCheckpointStore if isinstance(run_dir, NullRunDir) else CheckpointStore
        self.store = store_class(run_dir.checkpoints, run_dir.best)
        self._saved_at = time.monotonic()
        self._saved: tuple[int, bool] | None = None
        self._warn_on_failure = config.on_save_failure is SaveFailure.warn

    def is_saved(self, state: TrainState) -> bool:
        """Return whether this state is saved, or being saved."""
        return self._saved == (state.step, state.evaluated)

    def is_due(self, state: TrainState) -> bool:
        """Return whether to save now: at the end of each epoch and of the training, and at the configured intervals.

        If an evaluation is due too, the checkpoint is saved after it.
        """
        if not state.evaluated or self.is_saved(state):
            return False
        steps, minutes = self.config.save_steps, self.config.save_interval_minutes
        by_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        by_step = steps is not None and state.step % steps == 0
        return by_time or by_step or state.stopped or self.intervals.is_due(state.step, self.intervals.epoch)

    def save(self, captured: dict[str, Any], state: TrainState) -> None:
        """Start to write a checkpoint in the background, once the previous one is written.

        Raises:
            RuntimeError: if the previous one could not be written, with ``on_save_failure=stop``.
        """
        self.wait()
        self._saved, self._saved_at = (state.step, state.evaluated), time.monotonic()
        header = {"format": _FORMAT, "data": self.fingerprint, "total": self.intervals.total}
        try:
            self.store.save(header | captured | {"metrics_bytes": self.run_dir.metrics_size()})
        except OSError as error:
            self._fail(error)

    def check_background_save(self) -> None:
        """Report a checkpoint that could not be written, without waiting for one that is being written."""
        if not self.store.is_writing:
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            RuntimeError: if it could not be written, with ``on_save_failure=stop``.
        """
        try:
            self.store.wait()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._saved = None
        previous = "the previous one is still there" if self.store.last.exists() else "there is none yet"
        message = f"checkpoints/last could not be written: {error}; {previous}"
        if not self._warn_on_failure:
            raise RuntimeError(f"{message} (checkpoint.on_save_failure=stop)") from error
        log.warning("%s", message)

    def on_exception(self, trainer: TrainerView, error: BaseException) -> None:
        """After a signal, only warn of a failed save, so that it does not hide why the run ended."""
        if isinstance(error, KeyboardInterrupt):
            self._warn_on_failure = True

    def on_fit_end(self, trainer: TrainerView) -> None:
        """Wait for the last checkpoint."""
        self.wait()

    def load(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, or None; delete rows of metrics and saved weights of later steps.

        Raises:
            InputError: when it belongs to other data, all are damaged, or a complete run has none.
        """
        if isinstance(self.store, NullCheckpointStore):
            return None  # rank 0 loads it, and the caller broadcasts it
        state = self.store.load(lambda what: log.warning("%s; the previous one is used, if there is one", what))
        if state is None and self.run_dir.summary.exists():
            raise InputError(f"{self.run_dir.path}: complete, and has no checkpoint to resume from (checkpoints/last)")
        if state is None:
            return None
        if state.get("format") != _FORMAT:
            raise InputError(f"{self.store.last}: format {state.get('format')}; this version reads {_FORMAT}")
        if state["data"] != self.fingerprint:
            raise InputError(f"{self.run_dir.path}: data or tokenizer are not those that the run started with")
        step = state["training"]["state"]["step"]
        self._truncate(state["metrics_bytes"], step)
        self._saved = (step, state["training"]["state"]["evaluated"])
        return dict(state)

    def discard_all(self) -> None:
        """Delete all checkpoints, and all rows of metrics and saved weights: the run starts from the beginning."""
        if not isinstance(self.store, NullCheckpointStore):
            self.store.clear()
            self._truncate(0, 0)

    def _truncate(self, metrics_bytes: int, step: int) -> None:
        """Delete the rows and weights of steps after the checkpoint, which will be repeated."""
        self.run_dir.truncate_metrics(metrics_bytes)
        for path in self.run_dir.saved_weights(past=step):
            shutil.rmtree(path)

    def close(self) -> None:
        """Delete the previous checkpoint of a complete run; the last one is enough to resume from."""
        self.wait()
        self.store.drop_previous()
