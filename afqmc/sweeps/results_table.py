"""results.csv and results.jsonl: a row a job, made from the run directories and kept up to date as jobs end."""

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

PLANNED = "planned"  # it has not begun
UNWELL = (Status.failed.value, Status.cancelled.value)  # run again if that is asked
_ENDED = (Status.completed, Status.failed, Status.cancelled, Status.pruned, Status.refused)
_ORDER = (*(status.value for status in _ENDED), Status.interrupted.value, Status.running.value, PLANNED)
_FIGURES = ("steps", "seconds", "train_seconds", "train_pairs_per_second", "peak_memory_gib")
_EVERY_S = 1.0


def status_of(run_dir: RunDir) -> str:
    """What became of a job; a run that was killed is ``interrupted``, and can be gone on with."""
    if run_dir.summary.exists():
        return Status.completed.value
    found = run_dir.read_status().get("status")
    if found == Status.running.value and not is_locked(run_dir.path):
        return Status.interrupted.value
    return found if found in _ORDER and found != Status.completed.value else PLANNED


def row_of(sweep: Sweep, job: Job) -> dict[str, Any]:
    """A job's overrides as columns, how it ended, and its final figures."""
    run_dir = sweep.run_dir(job)
    status = status_of(run_dir)
    row: dict[str, Any] = {"job": job.number, "directory": job.directory, "status": status}
    row |= {
        key.lstrip("+"): value for key, _, value in (override.partition("=") for override in job.redacted_overrides)
    }
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
    """The rows of a sweep, read again where a run directory has changed.

    Attributes:
        unwritten: Why the files are not as they should be, if they are not.
    """

    def __init__(self, sweep: Sweep, jobs: Sequence[Job] = ()) -> None:
        self.sweep, self.jobs = sweep, list(jobs)
        self.unwritten: str | None = None
        self._rows: dict[str, tuple[Any, dict[str, Any]]] = {}  # by directory
        self._lock = threading.Lock()

    def write(self, jobs: Sequence[Job]) -> None:
        """Both files, for these jobs from now on, whole at any moment."""
        with self._lock:
            self.jobs = list(jobs)
            self._write()

    @contextmanager
    def kept_up_to_date(self) -> Iterator[None]:
        """In here a thread looks every second whether a job has ended, whoever runs it, and wherever."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_EVERY_S):
                with self._lock:
                    if any(self._mark(job) != self._rows.get(job.directory, (None,))[0] for job in self.jobs):
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
        """On a full disk the jobs go on: the files can be made again from what these leave."""
        before, self.unwritten = self.unwritten, None
        try:
            self._write()
        except OSError as error:
            self.unwritten = str(error)
            if before is None:
                log.warning("%s: results.csv and results.jsonl could not be written: %s", self.sweep.path, error)

    def _write(self) -> None:
        rows = []
        for job in self.jobs:
            mark = self._mark(job)
            if self._rows.get(job.directory, (None,))[0] != mark:
                self._rows[job.directory] = mark, row_of(self.sweep, job)
            rows.append(self._rows[job.directory][1])
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_text(self.sweep.path / "results.jsonl", "".join(lines))
        write_text(self.sweep.path / "results.csv", _as_csv(rows))

    def _mark(self, job: Job) -> Any:
        """Changes when the job's row does."""
        run_dir = self.sweep.run_dir(job)
        return _time_of(run_dir.path / "status.json"), _time_of(run_dir.summary)


def status_report(sweep: Sweep, jobs: Sequence[Job]) -> str:
    """``7 completed, 1 failed, 1 pruned``; and, a line each, the directories of what is not completed."""
    found = {job: status_of(sweep.run_dir(job)) for job in jobs}
    counts = Counter(found.values())
    told = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
    lines = [
        f"{status}: {sweep.path / job.directory}{_why(sweep.run_dir(job))}"
        for job, status in found.items()
        if status not in (Status.completed.value, PLANNED)
    ]
    return "\n".join([*lines, f"{told}: {sweep.path}"])


def have_failed(sweep: Sweep, jobs: Sequence[Job]) -> bool:
    """Whether one of them is neither completed nor pruned."""
    fine = (Status.completed.value, Status.pruned.value)
    return any(status_of(sweep.run_dir(job)) not in fine for job in jobs)


def unfinished(sweep: Sweep, jobs: Sequence[Job], retry_failed: bool) -> list[Job]:
    """What is left to do."""
    done = {Status.completed.value, Status.pruned.value} | (set() if retry_failed else set(UNWELL))
    return [job for job in jobs if status_of(sweep.run_dir(job)) not in done]


def _why(run_dir: RunDir) -> str:
    error = str(run_dir.read_status().get("error") or "").strip()
    return f" ({error.splitlines()[0]})" if error else ""


def _time_of(path: Path) -> int | None:
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
