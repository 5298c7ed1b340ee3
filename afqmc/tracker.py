"""Who else is told about a run: Weights & Biases, or nobody. Nothing that a tracker does stops or slows a run."""

from __future__ import annotations

import logging
import math
import netrc
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import urlsplit

import numpy as np

from afqmc.knobs import knob

log = logging.getLogger(__name__)

_FINISH_S = 60.0  # waited for W&B to write out what it has, at most


class Service(Enum):
    """Trackers there are."""

    wandb = "wandb"
    none = "none"


class WandbMode(Enum):
    """Where W&B's figures go."""

    auto = "auto"  # online when logged in, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class TrackerConfig:
    """The ``tracker`` group; names as in ``wandb.init``."""

    service: Service = knob(Service.wandb, "wandb or none")
    mode: WandbMode = knob(WandbMode.auto, "auto, online, offline or disabled")
    project: str = knob("afqmc", "W&B project")
    entity: Optional[str] = knob(None, "W&B user or team")
    group: Optional[str] = knob(None, "runs shown together")
    job_type: Optional[str] = knob("train", "kind of run")
    tags: list[str] = knob([], "labels")
    name: Optional[str] = knob(None, "the run's name; null takes its directory's")
    notes: Optional[str] = knob(None, "a remark")
    log_model: bool = knob(False, "upload the best weights as an artifact")


@dataclass(frozen=True)
class Report:
    """What is worth a chart after training, all on dev: probabilities (N, C), gold labels (N,), and the sentences."""

    labels: tuple[str, ...]
    probabilities: np.ndarray
    gold: np.ndarray
    sentence1: list[str]
    sentence2: list[str]
    weights: Optional[Path] = None


class Tracker(Protocol):
    """A run begins, rows are logged, a report follows, the run ends; in this order, from one thread."""

    def log(self, row: dict[str, Any]) -> None:
        """One row of metrics.jsonl."""

    def summary(self, best: dict[str, Any]) -> None:
        """The figures of the best evaluation so far."""

    def report(self, report: Report) -> None:
        """Charts and tables of the best weights."""

    def finish(self, exit_code: int) -> None:
        """The run is over; 0 when it went well."""


class NullTracker:
    """Tells nobody."""

    def log(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def summary(self, best: dict[str, Any]) -> None:
        """Nothing."""

    def report(self, report: Report) -> None:
        """Nothing."""

    def finish(self, exit_code: int) -> None:
        """Nothing."""


class BackgroundTracker:
    """Another tracker, used from a thread of its own: whatever it raises is a warning, once, and then it is left alone.

    ``start`` builds the other tracker, in that thread, since beginning may take seconds or never end.
    """

    def __init__(self, start: Callable[[], Tracker], finish_s: float = _FINISH_S) -> None:
        self._calls: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._finish_s = finish_s
        self._broken = False
        self._thread = threading.Thread(target=self._work, args=(start,), name="tracker", daemon=True)
        self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Queue a row."""
        self._calls.put(("log", row))

    def summary(self, best: dict[str, Any]) -> None:
        """Queue the best figures."""
        self._calls.put(("summary", best))

    def report(self, report: Report) -> None:
        """Queue the report."""
        self._calls.put(("report", report))

    def finish(self, exit_code: int) -> None:
        """End the other tracker, waiting for it a bounded time."""
        self._calls.put(("finish", exit_code))
        self._calls.put(None)
        self._thread.join(self._finish_s)
        if self._thread.is_alive():
            self._warn(f"not finished after {self._finish_s:g} s, left behind")

    def _work(self, start: Callable[[], Tracker]) -> None:
        tracker: Tracker = NullTracker()
        try:
            tracker = start()
        except BaseException as error:  # the library may raise anything, SystemExit too
            self._warn(error)
        while (call := self._calls.get()) is not None:
            if self._broken and call[0] != "finish":
                continue
            try:
                getattr(tracker, call[0])(call[1])
            except BaseException as error:
                self._warn(error)

    def _warn(self, error: BaseException | str) -> None:
        if not self._broken:
            self._broken = True
            log.warning("W&B: %s; the run goes on, and its own files are complete without it", error)


def build_tracker(config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> Tracker:
    """The configured tracker. ``settings`` is the resolved config of the run, as plain containers."""
    if (
        config.service is Service.none
        or config.mode is WandbMode.disabled
        or os.environ.get("WANDB_MODE") == "disabled"
    ):
        return NullTracker()
    return BackgroundTracker(lambda: WandbTracker(config, settings, run_dir))


def resolve_mode(config: TrackerConfig) -> str:
    """``online`` or ``offline``: as configured, as ``WANDB_MODE`` says, or by whether a key is to be had."""
    if config.mode is not WandbMode.auto:
        return str(config.mode.value)
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline"):
        return asked
    return "online" if logged_in() else "offline"


def logged_in() -> bool:
    """Whether a key is in the environment or, for the configured host, in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class WandbTracker:
    """One W&B run, its files inside the run directory."""

    def __init__(self, config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> None:
        import wandb

        self._wandb, self._config = wandb, config
        mode = resolve_mode(config)
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            job_type=config.job_type,
            tags=config.tags or None,
            name=config.name or run_dir.name,
            notes=config.notes,
            config=settings,
            dir=str(run_dir),
            mode=mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        if mode == "offline":
            log.info("W&B: offline; to send this run later: wandb sync %s", Path(self._run.dir).parent)
        else:
            log.info("W&B: %s", self._run.url)

    def log(self, row: dict[str, Any]) -> None:
        """A row against our own ``step``."""
        self._run.log({key: value for key, value in row.items() if value is not None})

    def summary(self, best: dict[str, Any]) -> None:
        """Under ``best/``, so that the last value of a metric stays beside it."""
        self._run.summary.update({f"best/{key}": value for key, value in best.items()})

    def report(self, report: Report) -> None:
        """Confusion matrix, precision-recall curve (two classes), the worst errors, and the weights if asked."""
        wandb = self._wandb
        predicted = report.probabilities.argmax(axis=1)
        charts: dict[str, Any] = {
            "dev/confusion_matrix": wandb.plot.confusion_matrix(
                y_true=report.gold.tolist(), preds=predicted.tolist(), class_names=list(report.labels)
            ),
            "dev/worst_errors": wandb.Table(
                columns=["sentence1", "sentence2", "label", "predicted", "probability_of_label"], data=worst(report)
            ),
        }
        if len(report.labels) == 2 and len(np.unique(report.gold)) == 2:
            table = wandb.Table(columns=["recall", "precision"], data=pr_points(report))
            charts["dev/pr_curve"] = wandb.plot.line(table, "recall", "precision", title="Precision and recall on dev")
        self._run.log(charts)
        if self._config.log_model and report.weights is not None:
            artifact = wandb.Artifact(f"{self._run.id}-best", type="model")
            artifact.add_dir(str(report.weights))
            self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Shown as crashed unless ``exit_code`` is 0."""
        self._run.finish(exit_code=exit_code)


def worst(report: Report, count: int = 100) -> list[list[Any]]:
    """The wrongly predicted pairs that gave their own label the least probability, worst first."""
    of_label = report.probabilities[np.arange(len(report.gold)), report.gold]
    predicted = report.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != report.gold)
    return [
        [
            report.sentence1[row],
            report.sentence2[row],
            report.labels[report.gold[row]],
            report.labels[predicted[row]],
            float(of_label[row]),
        ]
        for row in wrong[np.argsort(of_label[wrong], kind="stable")][:count].tolist()
    ]


def pr_points(report: Report, count: int = 200) -> list[list[float]]:
    """About ``count`` points of the precision-recall curve of class 1, by growing recall."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(report.gold, report.probabilities[:, 1])
    picked = np.unique(np.linspace(0, len(recall) - 1, min(count, len(recall))).round().astype(int))[::-1]
    return [[float(recall[point]), float(precision[point])] for point in picked]


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for every number that JSON cannot say."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
