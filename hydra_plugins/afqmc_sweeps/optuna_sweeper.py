"""``hydra/sweeper=optuna``: search with Optuna. Each trial is one job, or one per seed and fold."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from afqmc.run_dir import Status
from afqmc.sweeps.plan import Job
from afqmc.sweeps.pruner_warnings import explain_idle_pruner
from afqmc.sweeps.results_table import RETRYABLE, unfinished
from afqmc.sweeps.search_space import grid_points
from afqmc.sweeps.study import StudyConfig, open_study
from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._search_summary import log_best_trials
from hydra_plugins.afqmc_sweeps._sweep_session import Session
from hydra_plugins.afqmc_sweeps._trials import Space

if TYPE_CHECKING:
    from optuna.trial import Trial, TrialState

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Searches the space given by Hydra's sweep overrides with Optuna's samplers and pruners.

    Args:
        params: Sweep overrides by key, from a file in conf/sweep; those of the command line take precedence.
        settings: The fields of ``StudyConfig``.
    """

    def __init__(self, params: dict[str, str] | None = None, **settings: Any) -> None:
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        try:
            self.params, self.settings = params or {}, StudyConfig(**plain)
        except TypeError as error:
            raise InputError(f"hydra.sweeper: {error}") from error

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until there are ``n_trials``."""
        with Session.open(self._context, self._task, self._config) as session:
            overrides = session.merge_overrides(self.params, arguments)
            space = Space.of(overrides)
            metadata = {"sweeper": "optuna", "axes": [override.input_line for override in overrides]}
            _TrialLoop(session, self.settings, space, metadata).run()


class _TrialLoop:
    """One call of a search: worker threads run trials of the study until there are enough."""

    def __init__(self, session: Session, settings: StudyConfig, space: Space, metadata: dict[str, Any]) -> None:
        self.session, self.settings, self.space, self.metadata = session, settings, space, metadata
        self.lock = threading.Lock()  # guards the study
        self.stopped = threading.Event()

    def run(self) -> None:
        """Run the search to its end. If it is interrupted, unfinished trials are resumed by the next call."""
        session = self.session
        self.settings.check_repetitions(len(self.space.repetitions))
        probes = self.space.probes()
        session.check(probes)
        self.objectives = self.settings.objectives or [session.compose(probes[0]).trainer.monitor]
        self.metadata |= {"objectives": self.objectives, **self.space.metadata()}
        session.check_same_sweep(self.metadata)
        self.study = open_study(self.settings, session.sweep.path, self.objectives, self.space.dimensions)
        self.unfinished = [trial.number for trial in self.study.trials if not trial.state.is_finished()]
        self.total_trials = self._total_trials()
        if evaluations := self._evaluations(probes):
            self._warn_of_idle_pruner(evaluations)
        workers: int = self.settings.n_jobs or getattr(session.launcher, "n_jobs", None) or 1
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._work) for _ in range(workers)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._stop()
                raise
            if any(future.done() and future.exception() for future in futures):
                self._stop()
        for future in futures:
            future.result()
        self._log_best()
        if evaluations is None:
            self._warn_of_idle_pruner(max((trial.last_step or 0 for trial in self.study.trials), default=0))

    def _total_trials(self) -> int:
        """Return the number of trials to reach; with ``retry_failed`` each failed one is replaced, except in a grid."""
        from optuna.trial import TrialState

        total, failed = self.settings.n_trials, len(self.study.get_trials(states=(TrialState.FAIL,)))
        if self.settings.sampler == "grid":
            return min(total, len(grid_points(self.space.dimensions)))
        if self.session.config.sweep.retry_failed:
            return total + failed
        if failed:
            log.info("%d trials have failed; sweep.retry_failed=true replaces them by new ones", failed)
        return total

    def _stop(self) -> None:
        self.stopped.set()
        stop: Callable[[], None] | None = getattr(self.session.launcher, "stop", None)
        if stop is not None:
            stop()

    def _work(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                trial = self._next()
            if trial is None:
                return
            self._run_trial(trial)

    def _next(self) -> Trial | None:
        """Return an unfinished trial, else a new one, or None if there are enough."""
        import optuna

        if self.unfinished:
            number = self.unfinished.pop(0)
            self.study.sampler = self.settings.sampler_for(number, self.space.dimensions)
            return optuna.trial.Trial(self.study, self.study.trials[number]._trial_id)
        number = len(self.study.trials)
        if number >= self.total_trials:
            return None
        self.study.sampler = self.settings.sampler_for(number, self.space.dimensions)
        return self.study.ask()

    def _run_trial(self, trial: Trial) -> None:
        """Run all repetitions of a trial, and report the result to the study."""
        from optuna.trial import TrialState

        with self.lock:
            jobs = self.space.jobs(trial)
            self.session.add(jobs, self.metadata)
        values: list[list[float]] = []
        for job in jobs:
            status = self._run(job)
            run_values = self._values(job) if status == Status.completed.value else None
            if run_values is not None:
                values.append(run_values)
                if self._should_prune(trial, values):
                    return self._tell(trial, state=TrialState.PRUNED)
            elif status == Status.pruned.value:
                return self._tell(trial, state=TrialState.PRUNED)
            elif status in (*RETRYABLE, Status.refused.value, Status.completed.value):
                return self._tell(trial, state=TrialState.FAIL)
            else:
                return self.stopped.set()  # interrupted: the trial stays unfinished, to be resumed
        return self._tell(trial, [fmean(runs) for runs in zip(*values, strict=True)])

    def _run(self, job: Job) -> str:
        """Launch a job unless it has ended, and return its status."""
        session = self.session
        session.launch(unfinished(session.sweep, [job], session.config.sweep.retry_failed))
        return session.status(job)

    def _tell(self, trial: Trial, values: list[float] | None = None, state: TrialState | None = None) -> None:
        with self.lock:
            self.study.tell(trial, values, state)

    def _values(self, job: Job) -> list[float] | None:
        """Return the objectives of a complete run, or None if one is undefined."""
        run_dir = self.session.sweep.run_dir(job)
        summary = run_dir.read_summary()
        values = [{**summary, **summary["best"]}[name] for name in self.objectives]
        if None in values:
            log.warning("%s: %s is undefined", run_dir.summary, self.objectives[values.index(None)])
            return None
        return [float(value) for value in values]

    def _should_prune(self, trial: Trial, values: list[list[float]]) -> bool:
        """Ask the pruner whether to skip the remaining repetitions of a trial, given those so far."""
        step, runs = len(values) - 1, len(self.space.repetitions)
        if self.settings.pruner == "none" or step + 1 >= runs:
            return False
        # Wilcoxon compares runs by seed, the other pruners compare the mean so far
        value = values[-1][0] if self.settings.pruner == "wilcoxon" else fmean(run[0] for run in values)
        with self.lock:
            reported = self.study.trials[trial.number].intermediate_values  # not empty if the search was resumed
            if step not in reported:
                trial.report(value, step)
            prune = trial.should_prune()
        if prune:
            log.info("trial %d is pruned after %d of %d runs", trial.number, step + 1, runs)
        return prune

    def _log_best(self) -> None:
        from optuna.trial import TrialState

        if any(trial.state == TrialState.COMPLETE for trial in self.study.trials):
            dirs = [self.session.sweep.run_dir(job) for job in self.session.jobs]
            log_best_trials(self.study, self.objectives, [run for run in dirs if run.summary.exists()])

    def _evaluations(self, probes: Sequence[Job]) -> int | None:
        """Return how often the pruner judges a trial: per run, or per epoch of a run; None if the data decide."""
        repetitions = len(self.space.repetitions)
        if not self.settings.prunes_within_runs(repetitions):
            return repetitions
        configs = [self.session.compose(probe) for probe in probes]
        if any(config.trainer.eval_steps or config.trainer.max_steps for config in configs):
            return None
        return max(config.epochs for config in configs)

    def _warn_of_idle_pruner(self, evaluations: int) -> None:
        if why := explain_idle_pruner(self.settings, self.study.study_name, self.total_trials, evaluations):
            log.warning(why)
