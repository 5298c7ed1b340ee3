"""sweep.json: the jobs of a sweep, written before the first of them starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.file_lock import locked
from afqmc.utils.files import read_json, write_json
from afqmc.utils.redaction import redacted_argument, redacted_tree

_PLAN = "sweep.json"
_NO_PART = ("sweep.", "resume=")


@dataclass(frozen=True)
class Job:
    """One run to be.

    Attributes:
        number: Counted from 0; its directory's name begins with it.
        directory: Below that of the sweep.
        overrides: All of them, as typed; sweep.json and what is read from it hold no secrets.
    """

    number: int
    directory: str
    overrides: tuple[str, ...]

    @property
    def redacted_overrides(self) -> tuple[str, ...]:
        """The overrides without secrets."""
        return tuple(map(redacted_argument, self.overrides))

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it this job: not how its sweep goes about it, nor the order of keys; of one's values the last."""
        last = {one.partition("=")[0]: one for one in self.redacted_overrides if not one.startswith(_NO_PART)}
        return tuple(last[key] for key in sorted(last))


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory."""

    path: Path

    def locked(self) -> AbstractContextManager[None]:
        """Alone at it: nothing is started twice.

        Raises:
            InputError: on entering, when another process is at this sweep.
        """
        return locked(self.path, "sweep")

    def reject_escaping_links(self) -> None:
        """Check the directory and all job directories before anything is written there; raises as ``RunDir`` does."""
        RunDir(self.path).reject_escaping_links()

    def run_dir(self, job: Job) -> RunDir:
        """Where a job runs."""
        return RunDir(self.path / job.directory)

    def read(self) -> tuple[Job, ...]:
        """The jobs that are planned; none where nothing is.

        Raises:
            InputError: when the plan cannot be read.
        """
        path = self.path / _PLAN
        if not path.exists():
            return ()
        with as_input_error(f"{path}: not the plan of a sweep; restore it, or start another with another sweep.name"):
            return tuple(_job(entry) for entry in read_json(path)["jobs"])

    def about(self) -> dict[str, Any]:
        """What the plan says besides its jobs."""
        return {key: value for key, value in read_json(self.path / _PLAN).items() if key != "jobs"}

    def write(self, jobs: Iterable[Job], about: dict[str, Any]) -> None:
        """Replace the plan; ``about`` goes with it, and what was said of it before stays."""
        told = redacted_tree({**about, **self.about()})
        write_json(self.path / _PLAN, told | {"jobs": [_entry(job) for job in jobs]})


def merge_plan(planned: Sequence[Job], wanted: Iterable[tuple[str, Sequence[str]]]) -> tuple[list[Job], list[Job]]:
    """The plan with what is wanted and not in it yet, and the jobs that are wanted.

    Args:
        planned: What there is.
        wanted: Of each job, what its directory is called after its number, and its overrides.

    Raises:
        InputError: when there is a plan, and nothing that is wanted is in it; or two jobs differ in a secret alone.
    """
    jobs = {job.identity: job for job in planned}
    asked: dict[int, Job] = {}
    for name, overrides in wanted:
        new = Job(len(jobs), f"{len(jobs)}-{name}", tuple(overrides))
        job = replace(jobs.setdefault(new.identity, new), overrides=new.overrides)
        if asked.setdefault(job.number, job) != job:
            raise InputError(f"{job.directory}: is two jobs that differ in a secret, and a plan holds no secrets")
    if planned and min(asked) >= len(planned):
        raise InputError(f"has other jobs, such as {planned[0].directory}; another sweep.name starts another sweep")
    return list(jobs.values()), list(asked.values())


def _entry(job: Job) -> dict[str, Any]:
    return {"number": job.number, "directory": job.directory, "overrides": list(job.redacted_overrides)}


def _job(entry: dict[str, Any]) -> Job:
    found = Job(int(entry["number"]), str(entry["directory"]), tuple(map(str, entry["overrides"])))
    if Path(found.directory).name != found.directory or found.directory in (".", ".."):
        raise ValueError(f"{found.directory} is not the name of a directory")
    return found
