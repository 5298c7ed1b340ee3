"""results.csv and results.jsonl: one row per job, read from the run directories and refreshed as jobs end."""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afqmc.run_dir import RunDir, Status
from afqmc.sweeps.plan import Job, Sweep
from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import is_locked
from afqmc.utils.files import write_text

log = logging.getLogger(__name__)

PLANNED = "planned"  # not started yet
RETRYABLE = (Status.failed.value, Status.cancelled.value)  # rerun with sweep.retry_failed=true
_ENDED = (Status.completed, Status.failed, Status.cancelled, Status.pruned, Status.refused)
_ORDER = (*(status.value for status in _ENDED), Status.interrupted.value, Status.running.value, PLANNED)
_FIGURES = ("steps", "total_seconds", "train_seconds", "train_pairs_per_second", "peak_memory_gib")
_REFRESH_S = 1.0


def status_of(run_dir: RunDir) -> str:
    """Return the status of a job; a run that was killed is ``interrupted``, and can be resumed."""
    if run_dir.summary.exists():
        return Status.completed.value
    status = run_dir.read_status().get("status")
    if status == Status.running.value and not is_locked(run_dir.path):
        return Status.interrupted.value
    return status if status in _ORDER and status != Status.completed.value else PLANNED


def result_row(sweep: Sweep, job: Job) -> dict[str, Any]:
    """Return the row of a job: its overrides as columns, its status, and its final figures."""
    run_dir = sweep.run_dir(job)
    status = status_of(run_dir)
    row: dict[str, Any] = {"job": job.number, "directory": job.directory, "status": status}
    for override in job.redacted_overrides:
        key, _, value = override.partition("=")
        row[key.lstrip("+")] = value
    if status == Status.completed.value:
        try:
            summary = run_dir.read_summary()
            best = dict(summary["best"])
            row |= {"best/step": best.pop("step"), "best/epoch": best.pop("epoch"), **best, **summary.get("test", {})}
            row |= {name: summary[name] for name in _FIGURES if name in summary}
        except (InputError, KeyError, TypeError) as error:
            row["error"] = f"summary.json: not readable ({error})"
    elif why := run_dir.read_status().get("error"):
        row["error"] = str(why)
    return row


class Results:
    """The results of a sweep; rows are read again if their run directory has changed.

    Attributes:
        write_error: Why the files could not be written, or None if they are up to date.
    """

    def __init__(self, sweep: Sweep, jobs: Sequence[Job] = ()) -> None:
        self.sweep, self.jobs = sweep, list(jobs)
        self.write_error: str | None = None
        self._rows: dict[str, tuple[Any, dict[str, Any]]] = {}  # by directory
        self._lock = threading.Lock()

    def write(self, jobs: Sequence[Job]) -> None:
        """Set the jobs, and replace both files atomically."""
        with self._lock:
            self.jobs = list(jobs)
            self._write()

    @contextmanager
    def auto_refresh(self) -> Iterator[None]:
        """Refresh the files every second, in a thread, if the status of a job has changed."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_REFRESH_S):
                with self._lock:
                    if any(self._version(job) != self._rows.get(job.directory, (None,))[0] for job in self.jobs):
                        self._try_to_write()

        thread = threading.Thread(target=watch, name="results", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with self._lock:
                if self.jobs:
                    self._try_to_write()

    def _try_to_write(self) -> None:
        """Only warn on failure: jobs can continue on a full disk, and the files can be rebuilt later."""
        previous_error, self.write_error = self.write_error, None
        try:
            self._write()
        except OSError as error:
            self.write_error = str(error)
            if previous_error is None:
                log.warning("%s: results.csv and results.jsonl could not be written: %s", self.sweep.path, error)

    def _write(self) -> None:
        rows = []
        for job in self.jobs:
            version = self._version(job)
            if self._rows.get(job.directory, (None,))[0] != version:
                self._rows[job.directory] = version, result_row(self.sweep, job)
            rows.append(self._rows[job.directory][1])
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_text(self.sweep.path / "results.jsonl", "".join(lines))
        write_text(self.sweep.path / "results.csv", _as_csv(rows))

    def _version(self, job: Job) -> Any:
        """Return a value that changes whenever the job's row does."""
        run_dir = self.sweep.run_dir(job)
        return _mtime(run_dir.path / "status.json"), _mtime(run_dir.summary)


def status_report(sweep: Sweep, jobs: Sequence[Job]) -> str:
    """Return counts such as ``7 completed, 1 failed``, after one line for each job that ended in another way."""
    statuses = {job: status_of(sweep.run_dir(job)) for job in jobs}
    counts = Counter(statuses.values())
    totals = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
    lines = [
        f"{status}: {sweep.path / job.directory}{_error_suffix(sweep.run_dir(job))}"
        for job, status in statuses.items()
        if status not in (Status.completed.value, PLANNED)
    ]
    return "\n".join([*lines, f"{totals}: {sweep.path}"])


def have_failed(sweep: Sweep, jobs: Sequence[Job]) -> bool:
    """Whether any job is neither completed nor pruned."""
    successful = (Status.completed.value, Status.pruned.value)
    return any(status_of(sweep.run_dir(job)) not in successful for job in jobs)


def unfinished(sweep: Sweep, jobs: Sequence[Job], retry_failed: bool) -> list[Job]:
    """Return the jobs that are still to be run; failed ones only if ``retry_failed``."""
    done = {Status.completed.value, Status.pruned.value} | (set() if retry_failed else set(RETRYABLE))
    return [job for job in jobs if status_of(sweep.run_dir(job)) not in done]


def _error_suffix(run_dir: RunDir) -> str:
    error = str(run_dir.read_status().get("error") or "").strip()
    return f" ({error.splitlines()[0]})" if error else ""


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    columns = [*dict.fromkeys(name for row in rows for name in row if name != "error"), "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
