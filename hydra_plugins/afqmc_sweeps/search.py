"""``hydra/sweeper=optuna``: each trial of a search is a job, or one a seed, and its number is its directory's."""

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

from afqmc.config import slug
from afqmc.errors import InputError
from afqmc.rundir import Status
from afqmc.search.space import Axis, corners, suggested
from afqmc.search.study import Settings, open_study
from afqmc.sweep.plan import Job
from afqmc.sweep.results import UNWELL, unfinished
from hydra_plugins.afqmc_sweeps._axes import axis_of
from hydra_plugins.afqmc_sweeps._session import Session

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial, TrialState

log = logging.getLogger(__name__)


class Search(Sweeper):
    """Optuna's samplers and pruners over Hydra's grammar of sweeps; the arguments are those of ``Settings``.

    Args:
        params: Axes by key; those of the command line replace them.
    """

    def __init__(self, params: Optional[dict[str, str]] = None, **settings: Any) -> None:
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        try:
            self.params, self.settings = params or {}, Settings(**plain)
        except TypeError as error:
            raise InputError(f"hydra.sweeper: {error}") from error

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Search until there are ``n_trials``."""
        with Session.opened(self._context, self._task, self._config) as session:
            overrides = session.axes(self.params, arguments)
            axes = [axis_of(override) for override in overrides if override.is_sweep_override()]
            fixed = [
                f"{override.get_key_element()}={override.get_value_element_as_str()}"
                for override in overrides
                if not override.is_sweep_override()
            ]
            if not axes:
                raise InputError("hydra/sweeper=optuna: nothing to search; as in lr=tag(log,interval(1e-6,1e-4))")
            if self.settings.seeds and any(axis.key == "seed" for axis in axes):
                raise InputError("seed: either searched or repeated (hydra.sweeper.seeds), not both")
            about = {"sweeper": "optuna", "axes": [override.input_line for override in overrides]}
            _Searching(session, self.settings, axes, fixed, about).run()


class _Searching:
    """One call of a search: workers take trials from the study until there are enough."""

    def __init__(
        self, session: Session, settings: Settings, axes: list[Axis], fixed: list[str], about: dict[str, Any]
    ) -> None:
        self.session, self.settings, self.axes, self.fixed, self.about = session, settings, axes, fixed, about
        self.turn = threading.Lock()  # the study is asked and told by one at a time
        self.ended = threading.Event()

    def run(self) -> None:
        """To the end of the search, or until it is interrupted; then trials that are not over stay so."""
        session = self.session
        probes = [Job(place, "probe", (*self.fixed, *ends)) for place, ends in enumerate(corners(self.axes))]
        session.check(probes)
        monitor = session.composed(probes[0]).trainer.monitor
        self.objectives = self.settings.objectives or [monitor]
        self.study = open_study(self.settings, session.sweep.path, self.objectives)
        self.open = [trial.number for trial in self.study.trials if not trial.state.is_finished()]
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
            self.study.sampler = self.settings.sampler_for(number, self.axes)
            return optuna.trial.Trial(self.study, self.study.trials[number]._trial_id)
        number = len(self.study.trials)
        if number >= self.settings.n_trials:
            return None
        self.study.sampler = self.settings.sampler_for(number, self.axes)
        return self.study.ask()

    def _try(self, trial: Trial) -> None:
        """Run it, over its seeds; tell the study how it went."""
        from optuna.trial import TrialState

        with self.turn:
            jobs = self._jobs(trial, suggested(trial, self.axes))
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

    def _jobs(self, trial: Trial, overrides: Sequence[str]) -> list[Job]:
        whole, number = (*self.fixed, *overrides), trial.number
        name = f"{number}-{slug([f'{key}={_short(value)}' for key, value in trial.params.items()])}"
        if not self.settings.seeds:
            return [Job(number, name, whole)]
        return [Job(number, f"{name}_seed-{seed}", (*whole, f"seed={seed}")) for seed in self.settings.seeds]

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
        """Whether the seeds so far are enough to give a setting up."""
        place = len(values) - 1
        if self.settings.pruner == "none" or place + 1 >= len(self.settings.seeds):
            return False
        # Wilcoxon compares seed by seed, the others the mean so far
        value = values[-1][0] if self.settings.pruner == "wilcoxon" else fmean(one[0] for one in values)
        with self.turn:
            if place not in self.study.trials[trial.number].intermediate_values:  # before it was killed and went on
                trial.report(value, place)
            hopeless = trial.should_prune()
        if hopeless:
            log.info("trial %d is given up after %d of %d seeds", trial.number, place + 1, len(self.settings.seeds))
        return hopeless

    def _say_best(self) -> None:
        from optuna.trial import TrialState

        study: Study = self.study
        states = [trial.state for trial in study.trials]
        if TrialState.COMPLETE not in states:
            return
        for trial in study.best_trials:
            reached = zip(self.objectives, trial.values, strict=True)
            figures = ", ".join(f"{name} {value:.4f}" for name, value in reached)
            params = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
            log.info("best: trial %d, %s: %s", trial.number, figures, params)


def _short(value: Any) -> str:
    """Three digits are enough to tell a directory by."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
