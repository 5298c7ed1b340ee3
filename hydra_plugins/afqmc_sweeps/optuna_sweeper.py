"""``hydra/sweeper=optuna``: each trial of a search is a job, or one a seed or fold; its number is its directory's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from statistics import fmean
from typing import TYPE_CHECKING, Any, Optional

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from afqmc.run_dir import Status
from afqmc.sweeps.plan import Job
from afqmc.sweeps.pruner_warnings import why_idle
from afqmc.sweeps.results_table import UNWELL, unfinished
from afqmc.sweeps.search_space import grid_points
from afqmc.sweeps.study import StudyConfig, open_study
from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._search_summary import say_best
from hydra_plugins.afqmc_sweeps._sweep_session import Session
from hydra_plugins.afqmc_sweeps._trials import Space

if TYPE_CHECKING:
    from optuna.trial import Trial, TrialState

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Optuna's samplers and pruners over Hydra's grammar of sweeps; the arguments are those of ``StudyConfig``.

    Args:
        params: Axes by key; those of the command line replace them.
    """

    def __init__(self, params: Optional[dict[str, str]] = None, **settings: Any) -> None:
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        try:
            self.params, self.settings = params or {}, StudyConfig(**plain)
        except TypeError as error:
            raise InputError(f"hydra.sweeper: {error}") from error

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Search until there are ``n_trials``."""
        with Session.opened(self._context, self._task, self._config) as session:
            overrides = session.axes(self.params, arguments)
            space = Space.of(overrides)
            about = {"sweeper": "optuna", "axes": [override.input_line for override in overrides]}
            _Searching(session, self.settings, space, about).run()


class _Searching:
    """One call of a search: workers take trials from the study until there are enough."""

    def __init__(self, session: Session, settings: StudyConfig, space: Space, about: dict[str, Any]) -> None:
        self.session, self.settings, self.space, self.about = session, settings, space, about
        self.turn = threading.Lock()  # the study is asked and told by one at a time
        self.ended = threading.Event()

    def run(self) -> None:
        """To the end of the search, or until it is interrupted; then trials that are not over stay so."""
        session = self.session
        self.settings.check_repetitions(len(self.space.repetitions))
        probes = self.space.probes()
        session.check(probes)
        self.objectives = self.settings.objectives or [session.composed(probes[0]).trainer.monitor]
        self.about |= {"objectives": self.objectives, **self.space.about()}
        session.refuse_another(self.about)
        self.study = open_study(self.settings, session.sweep.path, self.objectives, self.space.axes)
        self.open = [trial.number for trial in self.study.trials if not trial.state.is_finished()]
        self.wanted = self._wanted()
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
        self._say_best()
        if evaluations is None:
            self._warn_of_idle_pruner(max((trial.last_step or 0 for trial in self.study.trials), default=0))

    def _wanted(self) -> int:
        """How many trials there are to be; a point of a grid is tried once, and one that failed is not tried again."""
        from optuna.trial import TrialState

        wanted, failed = self.settings.n_trials, len(self.study.get_trials(states=(TrialState.FAIL,)))
        if self.settings.sampler == "grid":
            return min(wanted, len(grid_points(self.space.axes)))
        if failed and not self.session.config.sweep.retry_failed:
            log.info("%d of its trials have failed; sweep.retry_failed=true draws as many anew", failed)
        return wanted + failed if self.session.config.sweep.retry_failed else wanted

    def _stop(self) -> None:
        self.ended.set()
        stop: Callable[[], None] | None = getattr(self.session.launcher, "stop", None)
        if stop is not None:
            stop()

    def _work(self) -> None:
        while not self.ended.is_set():
            with self.turn:
                trial = self._next()
            if trial is None:
                return
            self._try(trial)

    def _next(self) -> Optional[Trial]:
        """One that was begun and is not over, else a new one, as long as there are not enough."""
        import optuna

        if self.open:
            number = self.open.pop(0)
            self.study.sampler = self.settings.sampler_for(number, self.space.axes)
            return optuna.trial.Trial(self.study, self.study.trials[number]._trial_id)
        number = len(self.study.trials)
        if number >= self.wanted:
            return None
        self.study.sampler = self.settings.sampler_for(number, self.space.axes)
        return self.study.ask()

    def _try(self, trial: Trial) -> None:
        """Run it, as often as it is repeated; tell the study how it went."""
        from optuna.trial import TrialState

        with self.turn:
            jobs = self.space.jobs(trial)
            self.session.add(jobs, self.about)
        values: list[list[float]] = []
        for job in jobs:
            status = self._run(job)
            reached = self._values(job) if status == Status.completed.value else None
            if reached is not None:
                values.append(reached)
                if self._is_hopeless(trial, values):
                    return self._tell(trial, state=TrialState.PRUNED)
            elif status == Status.pruned.value:
                return self._tell(trial, state=TrialState.PRUNED)
            elif status in (*UNWELL, Status.refused.value, Status.completed.value):
                return self._tell(trial, state=TrialState.FAIL)
            else:
                return self.ended.set()  # interrupted: it stays open, and is gone on with
        return self._tell(trial, [fmean(one) for one in zip(*values, strict=True)])

    def _run(self, job: Job) -> str:
        """Launch what is left of it; what became of it."""
        session = self.session
        session.launch(unfinished(session.sweep, [job], session.config.sweep.retry_failed))
        return session.status(job)

    def _tell(self, trial: Trial, values: Optional[list[float]] = None, state: Optional[TrialState] = None) -> None:
        with self.turn:
            self.study.tell(trial, values, state)

    def _values(self, job: Job) -> Optional[list[float]]:
        """The objectives that a run reached; None where one is undefined."""
        run_dir = self.session.sweep.run_dir(job)
        summary = run_dir.read_summary()
        found = [{**summary, **summary["best"]}[name] for name in self.objectives]
        if None in found:
            log.warning("%s: %s is undefined there", run_dir.summary, self.objectives[found.index(None)])
            return None
        return [float(value) for value in found]

    def _is_hopeless(self, trial: Trial, values: list[list[float]]) -> bool:
        """Whether the runs so far are enough to give a setting up."""
        place, runs = len(values) - 1, len(self.space.repetitions)
        if self.settings.pruner == "none" or place + 1 >= runs:
            return False
        # Wilcoxon compares seed by seed, the others the mean so far
        value = values[-1][0] if self.settings.pruner == "wilcoxon" else fmean(one[0] for one in values)
        with self.turn:
            if place not in self.study.trials[trial.number].intermediate_values:  # before it was killed and went on
                trial.report(value, place)
            hopeless = trial.should_prune()
        if hopeless:
            log.info("trial %d is given up after %d of %d runs", trial.number, place + 1, runs)
        return hopeless

    def _say_best(self) -> None:
        from optuna.trial import TrialState

        if any(trial.state == TrialState.COMPLETE for trial in self.study.trials):
            dirs = [self.session.sweep.run_dir(job) for job in self.session.jobs]
            say_best(self.study, self.objectives, [run for run in dirs if run.summary.exists()])

    def _evaluations(self, probes: Sequence[Job]) -> Optional[int]:
        """How often a trial is judged: per run or, within a run, per epoch; None where that depends on the data."""
        repetitions = len(self.space.repetitions)
        if not self.settings.prunes_within_runs(repetitions):
            return repetitions
        configs = [self.session.composed(probe) for probe in probes]
        if any(config.trainer.eval_steps or config.trainer.max_steps for config in configs):
            return None
        return max(config.epochs for config in configs)

    def _warn_of_idle_pruner(self, evaluations: int) -> None:
        if why := why_idle(self.settings, self.study.study_name, self.wanted, evaluations):
            log.warning(why)
