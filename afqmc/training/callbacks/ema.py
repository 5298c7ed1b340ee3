"""Exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, arXiv:1703.01780)."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from afqmc.training.callbacks.averaging import relative_distance, replaced_weights, trained_parameters
from afqmc.training.callbacks.base import Callback, StepView, TrainerView
from afqmc.training.events import EvaluationEnd
from afqmc.training.parallel import gather_full, shard_like

log = logging.getLogger(__name__)


class Ema(Callback):
    """Keeps ``s = d s + (1 - d) w`` of the weights w, and evaluates and saves s in place of w.

    The training itself does not change. The average starts as the initial weights. It is updated after optimizer steps,
    but not after one that fp16 skips. At the end, w is evaluated too, and both results are reported.

    Args:
        decay: d, >= 0 and < 1. The average covers about ``1 / (1 - d)`` updates. 0 switches the callback off.
        warmup: Whether update t, counted from 0, has the decay ``min(d, (1 + t) / (10 + t))``, so that the initial
            weights are soon forgotten (as ``num_updates`` of TensorFlow's ``ExponentialMovingAverage``).
        update_every: Optimizer steps per update.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True, update_every: int = 1) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must be >= 0 and < 1")
        if not isinstance(update_every, int) or update_every < 1:
            raise ValueError(f"update_every={update_every}: must be a whole number >= 1 (steps)")
        self.decay, self.warmup, self.update_every = decay, warmup, update_every
        self.steps, self.updates = 0, 0
        self.scores: dict[str, float] = {}
        self._parameters: dict[str, Tensor] = {}
        self._average: dict[str, Tensor] | None = None

    @property
    def is_off(self) -> bool:
        """Whether the average is equal to the weights."""
        return self.decay == 0

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Start with the weights of the model, unless a checkpoint was loaded."""
        self._parameters = trained_parameters(trainer.model)
        if self._average is None:
            self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        else:
            self._place_average()

    def on_after_optimizer_step(self, step: StepView) -> None:
        """Update the average."""
        if step.accelerator.optimizer_step_was_skipped:
            return
        self.steps += 1
        if self.steps % self.update_every == 0:
            assert self._average is not None
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
            update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            update([*self._average.values()], [*self._parameters.values()], None)
            self.updates += 1

    def evaluation_weights(self, model: nn.Module) -> AbstractContextManager[None]:
        """Replace the weights by the average."""
        assert self._average is not None
        return replaced_weights(model, self._average)

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Note the result of the average."""
        monitor = trainer.state.best.monitor
        self.scores = {f"averaged_{monitor}": event.evaluation.metrics[monitor]}

    def on_train_end(self, trainer: TrainerView) -> None:
        """Evaluate the weights that are not averaged."""
        monitor = trainer.state.best.monitor
        raw, averaged = trainer.evaluate().metrics[monitor], self.scores[f"averaged_{monitor}"]
        self.scores[f"raw_{monitor}"] = raw
        log.info("ema: dev/%s is %.4f with the averaged weights and %.4f with the raw ones", monitor, averaged, raw)

    def report(self) -> dict[str, float]:
        """Return ``|s - w| / |w|``, and at the end the monitored metric with both weights after the last step."""
        if self._average is None or self.updates == 0:
            return {}
        scores = self.scores if len(self.scores) > 1 else {}
        return {"distance": relative_distance(self._average, self._parameters), **scores}

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of updates. All processes call it."""
        counts = {"steps": self.steps, "updates": self.updates, "scores": self.scores}
        return {"average": gather_full(self._average), **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both."""
        self.steps, self.updates, self.scores = state["steps"], state["updates"], state["scores"]
        self._average = state["average"]
        if self._parameters:  # after a rollback; after a resume, the model is prepared later
            self._place_average()

    def _place_average(self) -> None:
        """Move the full average to the device, and shard it as the parameters are."""
        assert self._average is not None
        self._average = {
            name: shard_like(self._average[name], parameter).to(parameter.device)
            for name, parameter in self._parameters.items()
        }
