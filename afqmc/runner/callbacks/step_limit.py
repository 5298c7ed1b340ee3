"""End a run after a number of steps, without changing its schedule."""

from __future__ import annotations

from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import StepEnd
from afqmc.utils.errors import TrialPruned


class StepLimit(Callback):
    """Ends the run in the step after ``steps``, so that the metrics and the evaluation of that step are written.

    ``trainer.max_steps`` would change the learning rates, which depend on the number of steps.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, trainer: TrainerView, event: StepEnd) -> None:
        """Count the step.

        Raises:
            TrialPruned: in the first step after the limit.
        """
        if event.step > self.steps:
            raise TrialPruned(f"stopped after step {self.steps}, as --steps asks")
