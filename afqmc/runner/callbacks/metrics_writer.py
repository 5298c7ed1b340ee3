"""Write metrics.jsonl, and send its rows to the tracker."""

from __future__ import annotations

import logging
import time
from typing import Any

from afqmc.evaluation.evaluator import prefixed
from afqmc.run_dir import RunDir
from afqmc.tracking.base import Tracker
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import EvaluationEnd, StepEnd
from afqmc.training.nonfinite import NonFiniteLossError
from afqmc.utils.files import nan_to_none

log = logging.getLogger(__name__)

_SHOWN = ("accuracy", "f1", "roc_auc", "mcc", "loss", "masked_accuracy", "perplexity")


class MetricsWriter(Callback):
    """Appends one row per event to metrics.jsonl: ``time`` (seconds since 1970), ``step``, ``epoch``, and figures."""

    def __init__(self, run_dir: RunDir, tracker: Tracker) -> None:
        self.run_dir, self.tracker = run_dir, tracker

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Write the training metrics, every ``logging_steps`` steps."""
        if event.metrics is not None:
            self.tracker.log(self._write(event.step, event.epoch, nan_to_none(event.metrics)))

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Write the metrics of dev."""
        metrics = event.evaluation.metrics
        self.tracker.log(self._write(event.step, event.epoch, nan_to_none(prefixed("dev", metrics))))
        shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics)
        log.info("epoch %.2f  dev: %s%s", event.epoch, shown, "  (best so far)" if event.is_best else "")

    def on_nonfinite_loss(self, trainer: TrainerView, error: NonFiniteLossError) -> None:
        """Write the loss, the learning rate and the ids of the batch."""
        values = {"nonfinite/loss": str(error.loss), "nonfinite/lr": error.lr, "nonfinite/ids": error.ids}
        self._write(error.step, error.step / trainer.intervals.epoch, values)

    def _write(self, step: int, epoch: float, values: dict[str, Any]) -> dict[str, Any]:
        row = {"step": step, "epoch": round(epoch, 6), **values}
        self.run_dir.append_metrics({"time": round(time.time(), 3), **row})
        return row
