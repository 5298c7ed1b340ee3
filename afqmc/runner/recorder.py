"""What a training leaves behind as it goes: rows of figures, the best weights, and what a person should know."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afqmc.checkpoint.weights import save_weights
from afqmc.evaluation.evaluator import Evaluation
from afqmc.evaluation.metrics import collapsed_class
from afqmc.runner.setup import Prepared
from afqmc.runner.summary_table import in_words
from afqmc.training.events import Evaluated
from afqmc.training.parallel import whole
from afqmc.training.step import NonFiniteLossError
from afqmc.utils.files import finite

log = logging.getLogger(__name__)

_SHOWN = ("accuracy", "f1", "auc", "mcc", "loss")


@dataclass
class BestEvaluation:
    """The evaluation whose weights lie in checkpoints/best."""

    step: int
    epoch: float
    evaluation: Evaluation
    batch_size: int  # of the evaluation: the last bits of logits depend on it

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        logits = torch.from_numpy(self.evaluation.logits)
        return {
            "step": self.step,
            "epoch": self.epoch,
            "metrics": self.evaluation.metrics,
            "logits": logits,
            "batch_size": self.batch_size,
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> BestEvaluation:
        """From a checkpoint."""
        return cls(
            state["step"], state["epoch"], Evaluation(state["logits"].numpy(), state["metrics"]), state["batch_size"]
        )


class Records:
    """Of one run.

    Args:
        prepared: Its parts; the tracker is told the rows too.
        epoch: Optimizer steps of one.
    """

    def __init__(self, prepared: Prepared, epoch: int) -> None:
        self.prepared, self.run_dir, self.epoch = prepared, prepared.run_dir, epoch
        self.best: BestEvaluation | None = None
        self.warned_of_collapse = False

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = None if self.best is None else self.best.state()
        return {"best": best, "warned_of_collapse": self.warned_of_collapse}

    def put_back(self, state: dict[str, Any]) -> None:
        """As they were when a checkpoint was made."""
        self.best = None if state["best"] is None else BestEvaluation.of(state["best"])
        self.warned_of_collapse = state["warned_of_collapse"]

    def row(self, step: int, epoch: float, metrics: dict[str, float]) -> None:
        """For metrics.jsonl and the tracker."""
        row = {"step": step, "epoch": round(epoch, 6), **finite(metrics)}
        self.run_dir.append_metrics(row)
        self.prepared.tracker.log(row)

    def nonfinite(self, error: NonFiniteLossError) -> None:
        """A row that says which batch it was."""
        found = {"nonfinite/loss": str(error.loss), "nonfinite/lr": error.lr, "nonfinite/ids": error.ids}
        self.run_dir.append_metrics({"step": error.step, "epoch": round(error.step / self.epoch, 6), **found})

    def evaluation(self, event: Evaluated) -> None:
        """Write it down; keep its weights if they are the best, or wanted anyway."""
        metrics = named("dev", event.evaluation)
        self.row(event.step, event.epoch, metrics)
        shown = "  ".join(f"{name} {event.evaluation.metrics[name]:.4f}" for name in _SHOWN)
        log.info("epoch %.2f  dev: %s%s", event.epoch, shown, "  (best so far)" if event.is_best else "")
        self._warn_of_collapse(event.evaluation)
        if event.is_best:
            size = self.prepared.config.trainer.eval_batch_size
            self.best = BestEvaluation(event.step, event.epoch, event.evaluation, size)
            self._save_weights(self.run_dir.best)
            self.prepared.tracker.summary({"step": event.step, "epoch": event.epoch, **finite(metrics)})
        limit = self.prepared.config.trainer.save_total_limit
        if limit != 0:
            self._save_weights(self.run_dir.step_weights(event.step))
            for old in self.run_dir.kept_steps()[: -limit if limit else 0]:
                shutil.rmtree(old)

    def _save_weights(self, target: Path) -> None:
        parts, is_main = self.prepared, self.prepared.accelerator.is_main_process
        model = parts.accelerator.unwrap_model(parts.model)
        state = whole(model.state_dict(), is_main)
        if is_main:
            save_weights(target, model, parts.tokenizer, parts.data.labels, state)

    def _warn_of_collapse(self, evaluation: Evaluation) -> None:
        """Once a run; summary.json says whether it is true of the best weights."""
        found = collapsed_class(evaluation.logits)
        if found is not None and not self.warned_of_collapse:
            self.warned_of_collapse = True
            label = self.prepared.data.labels[found]
            log.warning("the model has collapsed: %s", in_words(label, evaluation.metrics["majority_accuracy"]))


def named(split: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics as ``split/name``."""
    return {f"{split}/{name}": value for name, value in evaluation.metrics.items()}
