"""Show the progress of a training."""

from __future__ import annotations

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import StepEnd
from afqmc.utils.console import TrainingBar


class ProgressBar(Callback):
    """Shows steps, loss, learning rate and the time left: a bar on a terminal, a line per row of metrics elsewhere.

    Args:
        speed_unit: What is counted per second.
    """

    def __init__(self, speed_unit: str) -> None:
        self.speed_unit = speed_unit
        self.bar: TrainingBar | None = None

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Draw the bar."""
        self.bar = TrainingBar(trainer.intervals.total, trainer.state.step, self.speed_unit)

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Advance by one step."""
        assert self.bar is not None
        is_logged = event.metrics is not None
        self.bar.step(event.step, event.epoch, event.loss, event.lr, event.pairs_per_second, is_logged)

    def on_fit_end(self, trainer: TrainerView) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
