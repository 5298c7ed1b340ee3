"""Weights & Biases: a run online, or offline where it cannot be online; never a question, never a line of its own."""

from __future__ import annotations

import logging
import re
import secrets
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from afqmc.errors import first_line
from afqmc.redaction import redacted, redacted_argument
from afqmc.tracker.config import TrackerConfig, logged_in, resolve_mode
from afqmc.tracker.protocol import Report

log = logging.getLogger(__name__)

_ID = "wandb/id"
_PROBE_S = 5
_INIT_S = 30


def preload() -> None:
    """Import what a W&B run will use, in the thread that trains.

    Importing wandb (pydantic) and beginning to train (torch) both parse source, and Python 3.11 fails at that in one of
    two threads that do it at once: ``SystemError: AST constructor recursion depth mismatch``.
    """
    import wandb.apis.public  # noqa: F401


def probe(url: str) -> None:
    """Hear whether anybody answers there: W&B itself would try for minutes.

    Raises:
        ConnectionError: when nobody does, or a gateway in its stead.
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=_PROBE_S).close()  # noqa: S310 - the person's own server
    except HTTPError as error:
        if error.code >= 500:
            raise ConnectionError(f"{url} answers {error.code}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # a certificate that W&B may know is an answer too
            raise ConnectionError(f"{url} does not answer ({reason})") from error


@contextmanager
def _no_secrets_in_argv() -> Iterator[None]:
    """W&B records the command line, as it finds it in ``sys.argv``; nobody else here looks there any more."""
    found = sys.argv
    sys.argv = [*found[:1], *map(redacted_argument, found[1:])]
    try:
        yield
    finally:
        sys.argv = found


class WandbTracker:
    """One W&B run, its files inside the run directory."""

    def __init__(self, config: TrackerConfig, settings: dict[str, Any], run_dir: Path) -> None:
        import wandb

        self._wandb, self._config = wandb, config
        logging.raiseExceptions = False  # W&B's own log: where its disk is full, each line would print a traceback
        # silent for the whole library: what only a run is told leaves the login and artifacts free to write and ask
        library = wandb.setup(wandb.Settings(silent=True))
        if resolve_mode(config) == "online":
            try:
                if logged_in():  # without one W&B refuses at once
                    probe(library.settings.base_url)
                self._run = self._init("online", settings, run_dir)
                log.info("W&B: %s", self._run.url)
                return
            except Exception as error:  # W&B has many
                log.warning("W&B: cannot go online: %s", first_line(error))
        self._run = self._init("offline", settings, run_dir)
        log.info("W&B: offline; to send this run later: wandb sync %s", Path(self._run.dir).parent)

    def _init(self, mode: Literal["online", "offline"], settings: dict[str, Any], run_dir: Path) -> Any:
        wandb, config = self._wandb, self._config
        with _no_secrets_in_argv():
            run = wandb.init(
                project=config.project,
                entity=config.entity,
                group=config.group,
                job_type=config.job_type,
                tags=config.tags or None,
                name=config.name or redacted(run_dir.name),
                id=run_id(run_dir),
                resume="allow",
                notes=config.notes,
                config=settings,
                dir=str(run_dir),
                mode=mode,
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_S),
            )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run

    def log(self, row: dict[str, Any]) -> None:
        """A row against our own ``step``."""
        self._run.log({key: value for key, value in row.items() if value is not None})

    def summary(self, best: dict[str, Any]) -> None:
        """Under ``best/``, so that the last value of a metric stays beside it."""
        self._run.summary.update({f"best/{key}": value for key, value in best.items()})

    def report(self, report: Report) -> None:
        """Confusion matrix, precision-recall curve (two classes), worst errors; the best weights if asked."""
        wandb = self._wandb
        predicted = report.probabilities.argmax(axis=1)
        whose = f"on dev, best weights (step {report.step})"
        charts: dict[str, Any] = {
            "best/dev/confusion_matrix": wandb.plot.confusion_matrix(
                y_true=report.gold.tolist(),
                preds=predicted.tolist(),
                class_names=list(report.labels),
                title=f"Confusion matrix {whose}",
            ),
            "best/dev/worst_errors": wandb.Table(
                columns=["sentence1", "sentence2", "label", "predicted", "probability_of_label"], data=worst(report)
            ),
        }
        if len(report.labels) == 2 and len(np.unique(report.gold)) == 2:
            table = wandb.Table(columns=["recall", "precision"], data=pr_points(report))
            charts["best/dev/pr_curve"] = wandb.plot.line(
                table, "recall", "precision", title=f"Precision and recall {whose}"
            )
        self._run.log(charts)
        if self._config.log_model and report.weights is not None:
            artifact = wandb.Artifact(f"{self._run.id}-best", type="model")
            artifact.add_dir(str(report.weights))
            self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Shown as crashed unless ``exit_code`` is 0."""
        self._run.finish(exit_code=exit_code)


def run_id(run_dir: Path) -> str:
    """The id of this directory's W&B run, the same each time that the run is gone on with."""
    path = run_dir / _ID
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        found = ""
    if not re.fullmatch(r"[a-z0-9]{1,64}", found):
        found = secrets.token_hex(4)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{found}\n", encoding="utf-8")
    return found


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
