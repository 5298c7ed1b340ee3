"""What a running job tells the study after each evaluation, and hears from it."""

from __future__ import annotations

import logging
from pathlib import Path

from afqmc.sweeps.study import Settings, name_of

log = logging.getLogger(__name__)


class Judge:
    """Of one trial.

    Args:
        settings: Of the search.
        sweep: Its directory.
        number: The trial's.
        metric: As ``dev/f1``: what is judged.
    """

    def __init__(self, settings: Settings, sweep: Path, number: int, metric: str) -> None:
        import optuna

        storage, self.metric = settings.open_storage(sweep), metric
        study = optuna.load_study(study_name=name_of(settings, sweep), storage=storage, pruner=settings.build_pruner())
        trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        self.trial = optuna.trial.Trial(study, trial_id)
        self.told = set(storage.get_trial(trial_id).intermediate_values)  # before a run was killed and went on

    def __call__(self, number: int, metrics: dict[str, float], is_last: bool) -> str | None:
        """Why the run need not go on, if so.

        Args:
            number: Of the evaluation, counted from 1.
            metrics: Its own, by their names.
            is_last: After the last one nothing is pruned.
        """
        value = metrics[self.metric.partition("/")[2]]
        if number not in self.told:
            self.trial.report(value, number)
            self.told.add(number)
        if is_last or not self.trial.should_prune():
            return None
        return f"pruned after evaluation {number}: {self.metric} {value:.4f} is not among the best of the search"
