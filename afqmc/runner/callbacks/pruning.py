"""End a trial of a search early when its pruner decides so."""

from __future__ import annotations

from collections.abc import Callable

from afqmc.distributed.collectives import broadcast_object
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import EvaluationEnd
from afqmc.utils.errors import TrialPruned

Pruner = Callable[
    [int, dict[str, float], bool], str | None
]  # (index of the evaluation, metrics, is it the last) -> reason to end, or None


class Pruning(Callback):
    """Reports each evaluation to the study, and ends the run in all processes when the pruner gives a reason.

    Args:
        pruner: Of the study; None in processes other than rank 0.
    """

    def __init__(self, pruner: Pruner | None) -> None:
        self.pruner = pruner

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Report the evaluation.

        Raises:
            TrialPruned: when the trial is not promising.
        """
        reason: str | None = None
        if self.pruner is not None:
            index, is_last = -(-event.step // trainer.intervals.evaluate), event.step == trainer.intervals.total
            reason = self.pruner(index, event.evaluation.metrics, is_last)
        if reason := broadcast_object(trainer.accelerator, reason):
            raise TrialPruned(reason)
