"""A call of a sweep, shared by all sweepers: plan and check jobs, launch them, report their status."""

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
from afqmc.sweeps.results_table import RETRYABLE, Results, have_failed, status_of, status_report, unfinished
from afqmc.utils.errors import InputError, SweepFailed
from afqmc.utils.file_lock import is_locked
from afqmc.utils.redaction import redacted_tree
from hydra_plugins.afqmc_sweeps._config_snapshot import snapshot_loader
from hydra_plugins.afqmc_sweeps._subprocesses import call_in_process, process_context

log = logging.getLogger(__name__)

_ENSEMBLES = "ensembles"
_MAX_LISTED = 10
_ORPHANS_TIMEOUT_S = 60  # for jobs whose parent process was killed to save and exit


class Session:
    """One call of a sweep, created by ``open``, which locks the sweep.

    Attributes:
        sweep: The sweep's directory.
        jobs: All planned jobs.
    """

    def __init__(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.sweep = config, Sweep(Path(config.hydra.sweep.dir))
        self.jobs: list[Job] = list(self.sweep.read())
        if not self.jobs:
            redacted = redacted_tree(OmegaConf.to_container(config, resolve=False))  # a URL may contain a password
            OmegaConf.save(OmegaConf.create(redacted), self.sweep.path / "multirun.yaml")
        self.loader = snapshot_loader(context.config_loader, self.sweep.path, started=bool(self.jobs))
        if self.loader.changed:
            log.warning(
                "conf/ has been changed since %s started; the sweep continues with its copy of the old conf/",
                self.sweep.path,
            )
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=self.loader, callbacks=context.callbacks),
            task_function=task_function,
            config=config,
        )
        if config.sweep.fail_fast and not getattr(self.launcher, "can_fail_fast", False):
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            raise InputError(
                f"sweep.fail_fast=true: hydra/launcher={chosen} does not support it; hydra/launcher=processes does"
            )
        self.results = Results(self.sweep, self.jobs)

    @classmethod
    @contextmanager
    def open(cls, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Iterator[Session]:
        """Lock the sweep, wait for orphaned jobs, and keep the results up to date; build ensembles on exit.

        Raises:
            InputError: If another process has locked the sweep.
            SweepFailed: On exit, if a job is neither completed nor pruned.
        """
        with Sweep(Path(config.hydra.sweep.dir)).locked():
            session = cls(context, task_function, config)
            session._await_orphans()
            with session.results.auto_refresh():
                try:
                    yield session
                except KeyboardInterrupt:
                    if session.jobs:
                        log.info(status_report(session.sweep, session.jobs))
                        name = config.sweep.name
                        log.info("to resume the sweep, run the same command again, with sweep.name=%s", name)
                    raise
            session._build_ensembles()
            report = status_report(session.sweep, session.jobs)
            if have_failed(session.sweep, session.jobs) or session.results.write_error:
                raise SweepFailed(report)
            log.info(report)

    def variants(self, prepared: Mapping[str, Sequence[str]], arguments: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the variants of a grid. Once the sweep has started, they are those of its copy of conf/."""
        return self.loader.prepared_variants(self.config, self._single(arguments)) if self.jobs else prepared

    def merge_overrides(
        self, prepared: Mapping[str, str], arguments: Sequence[str], variants: Sequence[str] = ()
    ) -> list[Override]:
        """Return the overrides of a sweep: those of the command line, and the prepared ones of other keys.

        Once the sweep has started, the prepared overrides are those of its copy of conf/. With variants, one of these
        overrides sweeps over their names.
        """
        parser = OverridesParser.create(config_loader=self.loader)
        typed = parser.parse_overrides(list(arguments))
        if self.jobs:
            prepared = self.loader.prepared_params(self.config, self._single(arguments))
        if variants:
            prepared = {"sweep.variant": ",".join(variants), **prepared}
        typed_keys = {override.get_key_element() for override in typed}
        defaults = parser.parse_overrides([f"{key}={value}" for key, value in prepared.items()])
        return [*(override for override in defaults if override.get_key_element() not in typed_keys), *typed]

    def _single(self, arguments: Sequence[str]) -> list[str]:
        """Return the overrides that have a single value."""
        typed = OverridesParser.create(config_loader=self.loader).parse_overrides(list(arguments))
        return [str(override.input_line) for override in typed if not override.is_sweep_override()]

    def plan(self, requested: Sequence[tuple[str, Sequence[str]]], metadata: dict[str, Any]) -> list[Job]:
        """Check the jobs of a grid and write its plan; nothing is written if a job is invalid.

        Args:
            requested: For each job the suffix of its directory's name, after the number, and its overrides.
            metadata: What to store in the plan besides the jobs.

        Returns:
            The jobs that are still to be run.

        Raises:
            InputError: If the directory contains another sweep, or a job cannot run.
        """
        self.check_same_sweep({"sweeper": metadata["sweeper"]})
        try:
            jobs, selected = merge_plan(self.jobs, requested)
        except InputError as error:
            raise InputError(f"{self.sweep.path}: {error}") from error
        remaining = self.remaining(selected)
        self.check(remaining)
        self._write(jobs, metadata)
        return remaining

    def check_same_sweep(self, metadata: Mapping[str, Any]) -> None:
        """Check that a resumed sweep has the metadata of its plan, except for the axes.

        Raises:
            InputError: If something would change; names it.
        """
        planned = self.sweep.metadata() if self.jobs else {}
        for key, now in redacted_tree({key: value for key, value in metadata.items() if key != "axes"}).items():
            if (before := planned.get(key, now)) != now:
                change = f"{key}: it was started {_describe_change(before, now)}"
                raise InputError(f"{self.sweep.path}: {change}; another sweep.name starts a new sweep")

    def add(self, jobs: Sequence[Job], metadata: dict[str, Any]) -> None:
        """Add jobs to the plan, unless it has them already."""
        planned = {job.directory: job for job in self.jobs}
        self._write([*planned.values(), *(job for job in jobs if job.directory not in planned)], metadata)

    def _write(self, jobs: Sequence[Job], metadata: dict[str, Any]) -> None:
        self.jobs = list(jobs)
        self.sweep.write(self.jobs, {"created": time.time(), "version": __version__, **metadata})
        self.results.write(self.jobs)

    def compose(self, job: Job) -> Config:
        """Return the config of a job.

        Raises:
            InputError: If the config is invalid.
        """
        try:
            node = self.loader.load_sweep_config(self.config, list(job.overrides))
            config = to_config(drop_hydra_node(node))
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(format_hydra_error(error)) from error
        check_source(config.dataset, job.overrides)
        return config

    def check(self, jobs: Sequence[Job]) -> None:
        """Check all configs, then their data and models, before the first job starts.

        Raises:
            InputError: If jobs cannot run; gives the overrides of each, and the reason.
        """
        if not jobs:
            return
        configs, errors = {}, {}
        for job in jobs:
            try:
                configs[job] = self.compose(job)
            except InputError as error:
                errors[job] = str(error)
        _raise_errors(errors, jobs)
        from afqmc.runner.preflight import preflight

        log.info(
            "checking %d %s, with their data and models", len(configs), "config" if len(configs) == 1 else "configs"
        )
        processes = getattr(self.launcher, "processes", 1)
        errors_by_index = call_in_process(process_context("auto"), preflight, list(configs.values()), processes)
        _raise_errors(
            {job: errors_by_index[index] for index, job in enumerate(configs) if index in errors_by_index}, jobs
        )

    def remaining(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs that are still to be run, and log how many have ended."""
        retry = self.config.sweep.retry_failed
        remaining = unfinished(self.sweep, jobs, retry)
        if len(remaining) < len(jobs):
            can_retry = not retry and any(self.status(job) in RETRYABLE for job in jobs)
            hint = "; sweep.retry_failed=true reruns failed and cancelled jobs" if can_retry else ""
            log.info("%d of %d jobs have ended already%s", len(jobs) - len(remaining), len(jobs), hint)
        return remaining

    def status(self, job: Job) -> str:
        """Return the status of a job."""
        return status_of(self.sweep.run_dir(job))

    def launch(self, jobs: Sequence[Job]) -> None:
        """Run the jobs until all have ended, in whatever way."""
        if jobs:
            overrides = [[*job.overrides, f"hydra.sweep.subdir={job.directory}"] for job in jobs]
            self.launcher.launch(overrides, initial_job_idx=jobs[0].number)

    def _build_ensembles(self) -> None:
        """Combine folds and seeds of each setting: out-of-fold predictions, and mean predictions on the test split."""
        dirs = [self.sweep.run_dir(job) for job in self.jobs]
        complete = [run_dir.path for run_dir in dirs if run_dir.summary.exists()]
        if len(complete) > 1:
            from afqmc.results.ensemble import build_ensembles  # imports numpy, which planning does not need

            try:
                for target, why in build_ensembles(self.sweep.path / _ENSEMBLES, complete):
                    log.info("ensemble: %s%s", target, f": skipped ({why})" if why else "")
            except OSError as error:  # such as a full disk; afqmc.evaluate can build the ensembles later
                log.warning("ensembles could not be written: %s", error)

    def _await_orphans(self) -> None:
        """Wait for the jobs of a killed process, which save and exit; jobs managed by a cluster are not awaited."""
        since, external = time.monotonic(), getattr(self.launcher, "external_jobs", set[str]())
        orphans = [job for job in self.jobs if job.directory not in external]
        while busy := [job for job in orphans if is_locked(self.sweep.run_dir(job).path)]:
            if time.monotonic() - since > _ORPHANS_TIMEOUT_S:
                raise InputError(f"{self.sweep.run_dir(busy[0]).path}: this job is still running")
            time.sleep(0.2)


def _describe_change(before: Any, now: Any) -> str:
    """Describe how a value of the plan, or a list of values, differs from the current one."""
    old, new = (value if isinstance(value, list) else [value] for value in (before, now))
    removed = [str(value) for value in old if value and value not in new]
    added = [str(value) for value in new if value and value not in old]
    return " and ".join([f"with {', '.join(removed)}"] * bool(removed) + [f"without {', '.join(added)}"] * bool(added))


def _raise_errors(errors: dict[Job, str], jobs: Sequence[Job]) -> None:
    """Raise an ``InputError`` that names each invalid job by the overrides that not all jobs have in common."""
    if not errors:
        return
    common = set.intersection(*(set(job.redacted_overrides) for job in jobs)) if len(jobs) > 1 else set()
    lines = [
        f"  {' '.join(text for text in job.redacted_overrides if text not in common) or job.directory}: {why}"
        for job, why in list(errors.items())[:_MAX_LISTED]
    ]
    more = [f"  and {len(errors) - _MAX_LISTED} more"] if len(errors) > _MAX_LISTED else []
    raise InputError("\n".join([f"{len(errors)} of {len(jobs)} jobs cannot run; none was started:", *lines, *more]))
