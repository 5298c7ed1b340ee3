"""Reports the evaluations of a running trial to its study, and asks the pruner."""

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
        settings: Of the search.
        sweep: Its directory.
        number: Of the trial.
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
        self.reported = set(storage.get_trial(trial_id).intermediate_values)  # before a run was killed and resumed

    def __call__(self, number: int, metrics: dict[str, float], is_last: bool) -> str | None:
        """Report an evaluation; return why the run should end, None if it should continue.

        Args:
            number: Of the evaluation, counted from 1.
            metrics: Of the evaluation.
            is_last: After the last one nothing is pruned.
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
        sweep: Which the run belongs to.
        directory: Of the run, in the sweep.
        monitor: The metric to compare, unless the search has its own.
    """
    trials = {job.directory: job.number for job in sweep.read()}
    number = trials.get(directory)
    if number is None or sweeper["_target_"] != OPTUNA_SWEEPER:
        return None
    settings = StudyConfig(**{key: value for key, value in sweeper.items() if key not in ("_target_", "params")})
    if not settings.prunes_within_runs(list(trials.values()).count(number)):
        return None
    return TrialPruner(settings, sweep.path, number, (settings.objectives or [monitor])[0])
