"""The plan of a sweep, sweep.json: its jobs, written before the first one starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.file_lock import locked
from afqmc.utils.files import read_json_or_empty, write_json
from afqmc.utils.redaction import redacted_argument, redacted_tree

_PLAN = "sweep.json"
_NOT_IN_KEY = ("sweep.", "resume=")


@dataclass(frozen=True)
class Job:
    """A planned run.

    Attributes:
        number: Counted from 0; the name of its directory begins with it.
        directory: Name of its directory inside the sweep's.
        overrides: All overrides as typed; without secrets if read from sweep.json.
    """

    number: int
    directory: str
    overrides: tuple[str, ...]

    @property
    def redacted_overrides(self) -> tuple[str, ...]:
        """The overrides with secrets redacted."""
        return tuple(map(redacted_argument, self.overrides))

    @property
    def key(self) -> tuple[str, ...]:
        """The overrides that identify the job: sorted, the last one per key, without those of the sweep as a whole."""
        overrides = [override for override in self.redacted_overrides if not override.startswith(_NOT_IN_KEY)]
        last = {override.partition("=")[0]: override for override in overrides}
        return tuple(last[key] for key in sorted(last))


@dataclass(frozen=True)
class Sweep:
    """The directory of a sweep."""

    path: Path

    def locked(self) -> AbstractContextManager[None]:
        """Lock the sweep, so that no other process runs its jobs.

        Raises:
            InputError: On entering, if another process holds the lock.
        """
        return locked(self.path, "sweep")

    def reject_escaping_links(self) -> None:
        """Check the directory and all job directories for links that lead out of them, as ``RunDir`` does."""
        RunDir(self.path).reject_escaping_links()

    def run_dir(self, job: Job) -> RunDir:
        """Return the run directory of a job."""
        return RunDir(self.path / job.directory)

    def read(self) -> tuple[Job, ...]:
        """Return the planned jobs; empty without a plan.

        Raises:
            InputError: If the plan cannot be read.
        """
        path = self.path / _PLAN
        if not path.exists():
            return ()
        with as_input_error(
            f"{path}: invalid plan of a sweep; restore it, or start a new sweep with another sweep.name"
        ):
            return tuple(_parse_job(entry) for entry in read_json_or_empty(path)["jobs"])

    def metadata(self) -> dict[str, Any]:
        """Return the content of the plan except for its jobs."""
        return {key: value for key, value in read_json_or_empty(self.path / _PLAN).items() if key != "jobs"}

    def write(self, jobs: Iterable[Job], metadata: dict[str, Any]) -> None:
        """Replace the jobs of the plan; metadata that it already has is kept."""
        redacted = redacted_tree({**metadata, **self.metadata()})
        write_json(self.path / _PLAN, redacted | {"jobs": [_job_as_dict(job) for job in jobs]})


def merge_plan(planned: Sequence[Job], requested: Iterable[tuple[str, Sequence[str]]]) -> tuple[list[Job], list[Job]]:
    """Add the requested jobs to the plan; return the jobs of the new plan and the requested ones.

    Args:
        planned: The jobs of the existing plan.
        requested: For each job the suffix of its directory's name, after the number, and its overrides.

    Raises:
        InputError: If there is a plan that contains none of the requested jobs, or two jobs differ only in a secret.
    """
    jobs = {job.key: job for job in planned}
    selected: dict[int, Job] = {}
    for name, overrides in requested:
        new = Job(len(jobs), f"{len(jobs)}-{name}", tuple(overrides))
        job = replace(jobs.setdefault(new.key, new), overrides=new.overrides)
        if selected.setdefault(job.number, job) != job:
            raise InputError(
                f"{job.directory}: two jobs differ only in a secret value, which sweep.json does not store"
            )
    if planned and min(selected) >= len(planned):
        raise InputError(f"has other jobs, such as {planned[0].directory}; another sweep.name starts a new sweep")
    return list(jobs.values()), list(selected.values())


def _job_as_dict(job: Job) -> dict[str, Any]:
    return {"number": job.number, "directory": job.directory, "overrides": list(job.redacted_overrides)}


def _parse_job(entry: dict[str, Any]) -> Job:
    job = Job(int(entry["number"]), str(entry["directory"]), tuple(map(str, entry["overrides"])))
    if Path(job.directory).name != job.directory or job.directory in (".", ".."):
        raise ValueError(f"{job.directory} is not the name of a directory")
    return job
