"""Early stopping."""

from __future__ import annotations

import logging
import math
from typing import Any

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import EvaluationEnd
from afqmc.training.state import improves

log = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stops a training whose monitored metric no longer improves.

    Args:
        patience: Evaluations without improvement after which to stop.
        min_delta: Change of the metric that counts as an improvement.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.reference, self.evaluations_without_improvement = math.nan, 0

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Count the evaluation, and stop if there were too many."""
        best = trainer.state.best
        value = event.evaluation.metrics[best.monitor]
        self.evaluations_without_improvement += 1
        if improves(value, self.reference, best.higher_is_better, self.min_delta):
            self.reference, self.evaluations_without_improvement = value, 0
        if self.evaluations_without_improvement >= self.patience:
            trainer.state.stopped = True
            log.info(
                "stopped early at step %d: dev/%s has not improved by more than %g in %d evaluations",
                event.step, best.monitor, self.min_delta, self.evaluations_without_improvement,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return the best value that counted, and the evaluations since."""
        return {"reference": self.reference, "evaluations": self.evaluations_without_improvement}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both."""
        self.reference, self.evaluations_without_improvement = state["reference"], state["evaluations"]
