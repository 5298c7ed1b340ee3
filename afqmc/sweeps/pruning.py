"""Report the evaluations of a running trial to its study, and ask the pruner."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from afqmc.sweeps.plan import Sweep
from afqmc.sweeps.study import OPTUNA_SWEEPER, StudyConfig, study_name

log = logging.getLogger(__name__)


class TrialPruner:
    """The pruner of one trial.

    Args:
        settings: The settings of the search.
        sweep: The sweep's directory.
        number: The number of the trial.
        metric: The metric that is compared, such as ``dev/f1``.
    """

    def __init__(self, settings: StudyConfig, sweep: Path, number: int, metric: str) -> None:
        import optuna

        storage, self.metric = settings.open_storage(sweep), metric
        study = optuna.load_study(
            study_name=study_name(settings, sweep), storage=storage, pruner=settings.build_pruner()
        )
        trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        self.trial = optuna.trial.Trial(study, trial_id)
        self.reported = set(storage.get_trial(trial_id).intermediate_values)  # by the run before it was resumed

    def __call__(self, number: int, metrics: dict[str, float], is_last: bool) -> str | None:
        """Report an evaluation; return why the run should end, or None if it should continue.

        Args:
            number: The number of the evaluation, counted from 1.
            metrics: The metrics of the evaluation, without ``dev/``.
            is_last: Whether it is the last evaluation, after which nothing is pruned.
        """
        value = metrics[self.metric.partition("/")[2]]
        if number not in self.reported:
            self.trial.report(value, number)
            self.reported.add(number)
        if is_last or not self.trial.should_prune():
            return None
        return f"pruned after evaluation {number}: {self.metric} {value:.4f} is not among the best of the search"


def build_pruner(sweeper: dict[str, Any], sweep: Sweep, directory: str, monitor: str) -> TrialPruner | None:
    """Return the pruner of a run that is a trial of a search with one, else None.

    Args:
        sweeper: The ``hydra/sweeper`` group.
        sweep: The sweep that the run belongs to.
        directory: The name of the run's directory in the sweep.
        monitor: The metric to compare, unless the search sets objectives.
    """
    trials = {job.directory: job.number for job in sweep.read()}
    number = trials.get(directory)
    if number is None or sweeper["_target_"] != OPTUNA_SWEEPER:
        return None
    settings = StudyConfig(**{key: value for key, value in sweeper.items() if key not in ("_target_", "params")})
    if not settings.prunes_within_runs(list(trials.values()).count(number)):
        return None
    return TrialPruner(settings, sweep.path, number, (settings.objectives or [monitor])[0])
