"""Keeps the weights of the best evaluation, and those of past evaluations that are asked for."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afqmc.checkpoint.weights import save_weights, saved_module
from afqmc.evaluation.evaluator import Evaluation, prefixed
from afqmc.evaluation.metrics import collapsed_class
from afqmc.runner.setup import TrainingSetup
from afqmc.runner.summary_table import describe_collapse
from afqmc.training.callbacks.base import Callback, TrainerView
from afqmc.training.events import EvaluationEnd
from afqmc.training.parallel import gather_full
from afqmc.utils.files import nan_to_none

log = logging.getLogger(__name__)


@dataclass
class BestEvaluation:
    """The evaluation whose weights are in checkpoints/best.

    Attributes:
        batch_size: Of the evaluation; the last bits of logits depend on it.
    """

    step: int
    epoch: float
    evaluation: Evaluation
    batch_size: int


class BestWeights(Callback):
    """Saves checkpoints/best when the monitored metric is the best so far, and warns when a model collapses."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup, self.run_dir = setup, setup.run_dir
        self.best: BestEvaluation | None = None
        self.warned_of_collapse = False

    def on_new_best(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Save the best weights."""
        size = self.setup.config.trainer.eval_batch_size
        self.best = BestEvaluation(event.step, event.epoch, event.evaluation, size)
        self._save(self.run_dir.best)
        metrics = nan_to_none(prefixed("dev", event.evaluation.metrics))
        self.setup.tracker.log_summary({"step": event.step, "epoch": event.epoch, **metrics})

    def on_evaluation_end(self, trainer: TrainerView, event: EvaluationEnd) -> None:
        """Save the weights if those of past evaluations are kept."""
        self._warn_of_collapse(event.evaluation)
        limit = self.setup.config.checkpoint.keep_weights
        if limit != 0:
            self._save(self.run_dir.weights_path(event.step))
            for path in self.run_dir.saved_weights()[: -limit if limit else 0]:
                shutil.rmtree(path)

    def state_dict(self) -> dict[str, Any]:
        """Return the best evaluation, logits included."""
        best: dict[str, Any] | None = None
        if self.best is not None:
            evaluation = self.best.evaluation
            best = vars(self.best) | {
                "evaluation": {"logits": torch.from_numpy(evaluation.logits), "metrics": evaluation.metrics}
            }
        return {"best": best, "warned_of_collapse": self.warned_of_collapse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best evaluation."""
        best = state["best"]
        if best is not None:
            evaluation = Evaluation(best["evaluation"]["logits"].numpy(), best["evaluation"]["metrics"])
            best = BestEvaluation(**(best | {"evaluation": evaluation}))
        self.best, self.warned_of_collapse = best, state["warned_of_collapse"]

    def _save(self, target: Path) -> None:
        setup, is_main = self.setup, self.setup.accelerator.is_main_process
        model = saved_module(setup.accelerator.unwrap_model(setup.model))
        state = gather_full(model.state_dict(), is_main)
        if is_main:
            merged, transforms = state, setup.transforms.values()
            for transform in reversed(transforms):
                merged = transform.merge(model, merged)

            def write_more(directory: Path) -> None:
                for transform in transforms:
                    transform.save(directory, model, state)
                for name, text in setup.task.weights_files(setup.data).items():
                    (directory / name).write_text(text, encoding="utf-8")

            save_weights(target, model, setup.tokenizer, setup.data.labels, merged, write_more)

    def _warn_of_collapse(self, evaluation: Evaluation) -> None:
        """Warn once per run; summary.json says whether it is true of the best weights."""
        if not self.setup.data.labels:  # there are no classes in pretraining
            return
        label = collapsed_class(evaluation.logits)
        if label is not None and not self.warned_of_collapse:
            self.warned_of_collapse = True
            name, majority = self.setup.data.labels[label], evaluation.metrics["majority_accuracy"]
            log.warning("the model has collapsed: %s", describe_collapse(name, majority))
