"""Rebuild from a run directory what the run would have logged to W&B."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from afqmc import config as schema
from afqmc.cli import DONE, FAILED, INTERRUPTED
from afqmc.config import Config
from afqmc.results.predictions import Predictions
from afqmc.results.runs import Run
from afqmc.results.untrusted_files import read_object, read_text
from afqmc.run_dir import RunDir, Status
from afqmc.tracking.base import Report
from afqmc.tracking.config import WandbMode
from afqmc.tracking.factory import without_secrets
from afqmc.tracking.run_names import PRUNED
from afqmc.tracking.wandb_sync import FinishedRun
from afqmc.utils.errors import InputError
from afqmc.utils.redaction import redacted_tree

_EXIT_CODES = {Status.completed.value: DONE, PRUNED: DONE, Status.interrupted.value: INTERRUPTED}
_DATED_STEP = re.compile(r"^([\d-]{10} [\d:]{8}),(\d{3}) INFO afqmc\.(?:utils\.)?console: step (\d+)/", re.MULTILINE)


def finished_run(run: Run, mode: WandbMode) -> FinishedRun:
    """Collect config, metrics and charts of a run for upload.

    Raises:
        InputError: If its files cannot be read.
    """
    config = schema.load(run.path)
    tracker = without_secrets(replace(config.tracker, mode=mode))
    if run.status == PRUNED and PRUNED not in tracker.tags:
        tracker.tags = [*tracker.tags, PRUNED]
    rows = list(_tracked_rows(run))
    best, report, note = _best_row(rows, config), None, ""
    if run.is_complete:
        best = dict(read_object(run.path / "summary.json")["best"])
        try:
            report = _report(run, best["step"])
        except InputError as error:
            note = f", without charts ({error})"
    code = _EXIT_CODES.get(run.status, FAILED)
    settings = redacted_tree(schema.to_container(config))
    return FinishedRun(tracker, settings, list(_with_timestamps(run, rows)), best, report, code, note)


def _tracked_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of metrics.jsonl that trackers receive: all but those on a non-finite loss."""
    if RunDir(run.path).metrics.exists():
        yield from (row for row in run.rows() if not any(key.startswith("nonfinite/") for key in row))


def _best_row(rows: Sequence[dict[str, Any]], config: Config) -> dict[str, Any] | None:
    """Return the first row with the best value of the monitored metric, for a run without a summary."""
    monitor, sign = config.trainer.monitor, 1 if config.trainer.higher_is_better else -1
    evaluated = [row for row in rows if row.get(monitor) is not None]
    return max(evaluated, key=lambda row: sign * row[monitor], default=None)


def _with_timestamps(run: Run, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Add to each row the time of its step in run.log, or of the step before; unchanged if the log has no steps.

    The log of a resumed run may contain a step twice. The later one is that of the row.
    """
    log = run.path / "run.log"
    steps = _DATED_STEP.findall(read_text(log)) if log.exists() else []
    times = {int(step): _seconds(day, milliseconds) for day, milliseconds, step in steps}
    timestamp = min(times.values(), default=None)
    for row in rows:
        timestamp = times.get(int(row["step"]), timestamp)
        yield row if timestamp is None else {**row, "_timestamp": timestamp}


def _seconds(day: str, milliseconds: str) -> float:
    return time.mktime(time.strptime(day, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000


def _report(run: Run, step: int) -> Report:
    """Return the charts of the best weights, without the worst errors, whose sentences are not in the directory."""
    predictions, weights = Predictions.of(run, str(run.monitor)), RunDir(run.path).best
    answers = predictions.answers
    classes, saved = tuple(predictions.rows.classes), weights if weights.is_dir() else None
    return Report(step, classes, answers.probabilities, answers.gold, [], [], saved)
