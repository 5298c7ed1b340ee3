"""What every sweeper here does round its jobs: plan and check them, have them launched, say what became of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc import __version__
from afqmc.config import Config, check_source, drop_hydra_node, to_config
from afqmc.config.error_messages import format_hydra_error
from afqmc.sweeps.plan import Job, Sweep, merge_plan
from afqmc.sweeps.results_table import UNWELL, Results, have_failed, status_of, status_report, unfinished
from afqmc.utils.errors import InputError, SweepFailed
from afqmc.utils.file_lock import is_locked
from afqmc.utils.redaction import redacted_tree
from hydra_plugins.afqmc_sweeps._config_snapshot import frozen_loader
from hydra_plugins.afqmc_sweeps._subprocesses import answered, context_of

log = logging.getLogger(__name__)

_TOGETHER = "ensembles"
_LISTED = 10
_PATIENCE_S = 60  # for jobs that outlived the process that started them: they save, and end


class Session:
    """One call of a sweep; ``opened`` makes it, for as long as this process is alone at the sweep.

    Attributes:
        sweep: Its directory.
        jobs: All that are planned.
    """

    def __init__(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.sweep = config, Sweep(Path(config.hydra.sweep.dir))
        self.jobs: list[Job] = list(self.sweep.read())
        if not self.jobs:
            told = redacted_tree(OmegaConf.to_container(config, resolve=False))  # an address may hold a password
            OmegaConf.save(OmegaConf.create(told), self.sweep.path / "multirun.yaml")
        self.loader = frozen_loader(context.config_loader, self.sweep.path, begun=bool(self.jobs))
        if self.loader.changed:
            log.warning("conf/ has been changed since %s began; it goes on with conf/ as it was then", self.sweep.path)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=self.loader, callbacks=context.callbacks),
            task_function=task_function,
            config=config,
        )
        if config.sweep.fail_fast and not getattr(self.launcher, "can_fail_fast", False):
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            raise InputError(
                f"sweep.fail_fast=true: hydra/launcher={chosen} holds no job back; hydra/launcher=processes does"
            )
        self.results = Results(self.sweep, self.jobs)

    @classmethod
    @contextmanager
    def opened(cls, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Iterator[Session]:
        """Lock the sweep, wait for jobs that outlived who started them, and keep the results up to date.

        Raises:
            InputError: when another process is at it.
            JobsFailed: at the end, when a job is neither completed nor pruned.
        """
        with Sweep(Path(config.hydra.sweep.dir)).locked():
            session = cls(context, task_function, config)
            session._await_orphans()
            with session.results.kept_up_to_date():
                try:
                    yield session
                except KeyboardInterrupt:
                    if session.jobs:
                        log.info(status_report(session.sweep, session.jobs))
                    raise
            session._put_together()
            told = status_report(session.sweep, session.jobs)
            if have_failed(session.sweep, session.jobs) or session.results.unwritten:
                raise SweepFailed(told)
            log.info(told)

    def axes(self, prepared: Mapping[str, str], arguments: Sequence[str]) -> list[Override]:
        """The overrides of a search: those that are prepared, each replaced where the command line names its key.

        Once the sweep has begun, what is prepared is what conf/ said then.
        """
        parser = OverridesParser.create(config_loader=self.loader)
        given = parser.parse_overrides(list(arguments))
        if self.jobs:
            single = [str(override.input_line) for override in given if not override.is_sweep_override()]
            prepared = self.loader.prepared(self.config, single)
        named = {override.get_key_element() for override in given}
        before = parser.parse_overrides([f"{key}={value}" for key, value in prepared.items()])
        return [*(override for override in before if override.get_key_element() not in named), *given]

    def plan(self, wanted: Sequence[tuple[str, Sequence[str]]], about: dict[str, Any]) -> list[Job]:
        """Check the jobs of a grid and write its plan; a refused one leaves no trace.

        Args:
            wanted: Of each job, what its directory is called after its number, and its overrides.
            about: Of the sweep.

        Returns:
            What is left to do.

        Raises:
            InputError: when the directory holds another sweep, or a job cannot run.
        """
        self.refuse_another({"sweeper": about["sweeper"]})
        try:
            jobs, asked = merge_plan(self.jobs, wanted)
        except InputError as error:
            raise InputError(f"{self.sweep.path}: {error}") from error
        left = self.left(asked)
        self.check(left)
        self._write(jobs, about)
        return left

    def refuse_another(self, about: Mapping[str, Any]) -> None:
        """What a sweep is stays the same when it is gone on with, as far as its plan says.

        Raises:
            InputError: naming what would change.
        """
        before = self.sweep.about() if self.jobs else {}
        for key, now in redacted_tree({key: value for key, value in about.items() if key != "axes"}).items():
            if (then := before.get(key, now)) != now:
                told = f"{key}: it began {_changed(then, now)}"
                raise InputError(f"{self.sweep.path}: {told}; another sweep.name starts another sweep")

    def add(self, jobs: Sequence[Job], about: dict[str, Any]) -> None:
        """Jobs that the plan may hold already."""
        planned = {job.directory: job for job in self.jobs}
        self._write([*planned.values(), *(job for job in jobs if job.directory not in planned)], about)

    def _write(self, jobs: Sequence[Job], about: dict[str, Any]) -> None:
        self.jobs = list(jobs)
        self.sweep.write(self.jobs, {"created": time.time(), "version": __version__, **about})
        self.results.write(self.jobs)

    def composed(self, job: Job) -> Config:
        """Its config.

        Raises:
            InputError: for one that cannot be.
        """
        try:
            node = self.loader.load_sweep_config(self.config, list(job.overrides))
            config = to_config(drop_hydra_node(node))
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(format_hydra_error(error)) from error
        check_source(config.dataset, job.overrides)
        return config

    def check(self, jobs: Sequence[Job]) -> None:
        """Every config, then the data and models that they name, before the first job starts.

        Raises:
            InputError: naming each job that cannot run by its overrides, and why.
        """
        if not jobs:
            return
        configs, refused = {}, {}
        for job in jobs:
            try:
                configs[job] = self.composed(job)
            except InputError as error:
                refused[job] = str(error)
        _refuse(refused, jobs)
        from afqmc.runner.preflight import preflight

        log.info(
            "checking %d %s, with their data and models", len(configs), "config" if len(configs) == 1 else "configs"
        )
        processes = getattr(self.launcher, "processes", 1)
        found = answered(context_of("auto"), preflight, list(configs.values()), processes)
        _refuse({job: found[place] for place, job in enumerate(configs) if place in found}, jobs)

    def left(self, jobs: Sequence[Job]) -> list[Job]:
        """What is to be done of them; says what is not done again."""
        retry = self.config.sweep.retry_failed
        left = unfinished(self.sweep, jobs, retry)
        if len(left) < len(jobs):
            unwell = any(self.status(job) in UNWELL for job in jobs)
            hint = "; sweep.retry_failed=true runs those that failed or were cancelled again"
            told = hint if unwell and not retry else ""
            log.info("%d of %d jobs have ended already%s", len(jobs) - len(left), len(jobs), told)
        return left

    def status(self, job: Job) -> str:
        """What became of a job."""
        return status_of(self.sweep.run_dir(job))

    def launch(self, jobs: Sequence[Job]) -> None:
        """Have them run, to their end, however they end."""
        if jobs:
            overrides = [[*job.overrides, f"hydra.sweep.subdir={job.directory}"] for job in jobs]
            self.launcher.launch(overrides, initial_job_idx=jobs[0].number)

    def _put_together(self) -> None:
        """Folds and seeds of each setting: out-of-fold predictions, and the mean of all on the test split."""
        dirs = [self.sweep.run_dir(job) for job in self.jobs]
        complete = [run_dir.path for run_dir in dirs if run_dir.summary.exists()]
        if len(complete) > 1:
            from afqmc.results.ensemble import build_ensembles  # numpy and its kin, which planning needs not

            try:
                for target, why in build_ensembles(self.sweep.path / _TOGETHER, complete):
                    log.info("folds and seeds together: %s%s", target, f": nothing ({why})" if why else "")
            except OSError as error:  # such as a full disk; afqmc.evaluate does it again
                log.warning("folds and seeds together: %s", error)

    def _await_orphans(self) -> None:
        """Jobs of a process that was killed get a signal, save and end; those that a cluster has are left to it."""
        since, kept = time.monotonic(), getattr(self.launcher, "kept", set[str]())
        orphans = [job for job in self.jobs if job.directory not in kept]
        while busy := [job for job in orphans if is_locked(self.sweep.run_dir(job).path)]:
            if time.monotonic() - since > _PATIENCE_S:
                raise InputError(f"{self.sweep.run_dir(busy[0]).path}: this job is still running")
            time.sleep(0.2)


def _changed(then: Any, now: Any) -> str:
    """What a plan says of itself and is no longer asked, and the other way round."""
    before, after = (value if isinstance(value, list) else [value] for value in (then, now))
    gone, new = (
        [str(one) for one in these if one and one not in others] for these, others in ((before, after), (after, before))
    )
    return " and ".join([f"with {', '.join(gone)}"] * bool(gone) + [f"without {', '.join(new)}"] * bool(new))


def _refuse(refused: dict[Job, str], jobs: Sequence[Job]) -> None:
    """Name each by what not all jobs have in common."""
    if not refused:
        return
    common = set.intersection(*(set(job.redacted_overrides) for job in jobs)) if len(jobs) > 1 else set()
    lines = [
        f"  {' '.join(one for one in job.redacted_overrides if one not in common) or job.directory}: {why}"
        for job, why in list(refused.items())[:_LISTED]
    ]
    more = [f"  and {len(refused) - _LISTED} more"] if len(refused) > _LISTED else []
    raise InputError("\n".join([f"{len(refused)} of {len(jobs)} jobs cannot run; none was started:", *lines, *more]))
