"""The Weights & Biases tracker: metrics, summary, charts and tables of one run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.tracking.base import DevPredictions
from afqmc.tracking.config import TrackerConfig
from afqmc.tracking.run_names import run_id
from afqmc.tracking.wandb_mode import resolve_mode
from afqmc.tracking.wandb_session import init_run
from afqmc.utils.redaction import redacted

log = logging.getLogger(__name__)


class WandbTracker:
    """Logs to one W&B run, whose files are inside the run directory."""

    def __init__(self, config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> None:
        import wandb

        self._wandb, self._config = wandb, config
        config = replace(config, name=config.name or redacted(run_dir.name))
        self._run, self.is_online = init_run(config, settings, run_dir, run_id(run_dir))
        if self.is_online:
            log.info("W&B: %s", self._run.url)
        else:
            resolved = resolve_mode(config)
            is_configured = resolved.mode == "offline"
            reason = redacted(resolved.reason) if is_configured else "the server is unreachable, or refused the run"
            log.info("W&B: offline (%s); to send this run later: wandb sync %s", reason, Path(self._run.dir).parent)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    @property
    def known_rows(self) -> int:
        """The number of rows of this run that the server has already; 0 offline."""
        return int(self._run.starting_step)

    def log(self, row: dict[str, Any]) -> None:
        """Log a row, with our own ``step`` as the x axis."""
        self._run.log({key: value for key, value in row.items() if value is not None})

    def log_summary(self, best: dict[str, Any]) -> None:
        """Write the best metrics under ``best/``, beside W&B's own summary of last values."""
        self._run.summary.update({f"best/{key}": value for key, value in best.items()})

    def report(self, report: DevPredictions) -> None:
        """Log confusion matrix, worst errors and precision-recall curve (two classes); upload the weights if asked."""
        wandb = self._wandb
        predicted = report.probabilities.argmax(axis=1)
        suffix = f"on dev, best weights (step {report.step})"
        charts: dict[str, Any] = {
            "best/dev/confusion_matrix": wandb.plot.confusion_matrix(
                y_true=report.gold.tolist(),
                preds=predicted.tolist(),
                class_names=list(report.labels),
                title=f"Confusion matrix {suffix}",
            ),
        }
        if report.sentence1:
            columns = ["sentence1", "sentence2", "label", "predicted", "probability_of_label"]
            charts["best/dev/worst_errors"] = wandb.Table(columns=columns, data=worst(report))
        if len(report.labels) == 2 and len(np.unique(report.gold)) == 2:
            table = wandb.Table(columns=["recall", "precision"], data=pr_points(report))
            charts["best/dev/pr_curve"] = wandb.plot.line(
                table, "recall", "precision", title=f"Precision and recall {suffix}"
            )
        self._run.log(charts)
        if self._config.log_model and report.weights is not None:
            artifact = wandb.Artifact(f"{self._run.id}-best", type="model")
            artifact.add_dir(str(report.weights))
            self._run.log_artifact(artifact)

    def tag(self, tag: str) -> None:
        """Add a tag to the configured ones."""
        if tag not in self._run.tags:
            self._run.tags = (*self._run.tags, tag)

    def finish(self, exit_code: int) -> None:
        """Finish the run; W&B shows it as crashed unless ``exit_code`` is 0."""
        self._run.finish(exit_code=exit_code)


def worst(report: DevPredictions, count: int = 100) -> list[list[Any]]:
    """Return the ``count`` wrongly predicted pairs with the lowest probability of their label, worst first."""
    label_probability = report.probabilities[np.arange(len(report.gold)), report.gold]
    predicted = report.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != report.gold)
    return [
        [
            report.sentence1[row],
            report.sentence2[row],
            report.labels[report.gold[row]],
            report.labels[predicted[row]],
            float(label_probability[row]),
        ]
        for row in wrong[np.argsort(label_probability[wrong], kind="stable")][:count].tolist()
    ]


def pr_points(report: DevPredictions, count: int = 200) -> list[list[float]]:
    """Return up to ``count`` points (recall, precision) of class 1's precision-recall curve, by increasing recall."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(report.gold, report.probabilities[:, 1])
    picked = np.unique(np.linspace(0, len(recall) - 1, min(count, len(recall))).round().astype(int))[::-1]
    return [[float(recall[point]), float(precision[point])] for point in picked]
