"""Rebuild from a run directory what the run would have logged to W&B."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from afqmc import config as schema
from afqmc.cli import DONE, FAILED, INTERRUPTED
from afqmc.config import Config
from afqmc.config.renamed_keys import upgrade_figures
from afqmc.results.predictions import Predictions
from afqmc.results.runs import Run
from afqmc.results.untrusted_files import read_object
from afqmc.run_dir import RunDir, Status
from afqmc.tracking.base import DevPredictions
from afqmc.tracking.config import WandbMode
from afqmc.tracking.factory import without_secrets
from afqmc.tracking.run_names import PRUNED
from afqmc.tracking.wandb_sync import FinishedRun
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted_tree

_EXIT_CODES = {Status.completed.value: DONE, PRUNED: DONE, Status.interrupted.value: INTERRUPTED}


def finished_run(run: Run, mode: WandbMode) -> FinishedRun:
    """Collect config, metrics and charts of a run for upload.

    Raises:
        InputError: If its files cannot be read.
    """
    config = schema.load(run.path)
    tracker = without_secrets(replace(config.tracker, mode=mode))
    if run.status == PRUNED and PRUNED not in tracker.tags:
        tracker.tags = [*tracker.tags, PRUNED]
    rows = list(_rows(run))
    best, report, note = _best_row(rows, config), None, ""
    if run.is_complete:
        best = upgrade_figures(read_object(run.path / "summary.json")["best"])
        try:
            report = _report(run, best["step"])
        except InputError as error:
            note = f", without charts ({error})"
    code = _EXIT_CODES.get(run.status, FAILED)
    settings = redacted_tree(schema.to_container(config))
    return FinishedRun(tracker, settings, rows, best, report, code, note)


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of metrics.jsonl that trackers get, with their time under W&B's name.

    Rows about a loss that is not finite are left out: trackers do not get them during a run either.
    """
    if not RunDir(run.path).metrics.exists():
        return
    for row in run.rows():
        if not any(key.startswith("nonfinite/") for key in row):
            seconds = row.pop("time", None)  # rows of older versions have none
            yield row if seconds is None else {**row, "_timestamp": seconds}


def _best_row(rows: Sequence[dict[str, Any]], config: Config) -> dict[str, Any] | None:
    """Return the first row with the best value of the monitored metric, for a run without a summary."""
    monitor, sign = config.trainer.monitor, 1 if config.trainer.higher_is_better else -1
    scored = [row for row in rows if row.get(monitor) is not None]
    best = max(scored, key=lambda row: sign * row[monitor], default=None)
    return best and {key: value for key, value in best.items() if key != "_timestamp"}


def _report(run: Run, step: int) -> DevPredictions:
    """Return the charts of the best weights, without the worst errors, whose sentences are not in the directory."""
    predictions, weights = Predictions.of(run, str(run.monitor)), RunDir(run.path).best
    answers = predictions.answers
    classes, saved = tuple(predictions.rows.classes), weights if weights.is_dir() else None
    return DevPredictions(step, classes, answers.probabilities, answers.gold, [], [], saved)
