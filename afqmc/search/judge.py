"""What a running job tells the study after each evaluation, and hears from it."""

from __future__ import annotations

import logging
from pathlib import Path

from afqmc.errors import Pruned
from afqmc.search.study import Settings, name_of

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

    def __call__(self, number: int, metrics: dict[str, float], is_last: bool) -> None:
        """Evaluation ``number``, counted from 1, and its metrics by their names; after the last one nothing is pruned.

        Raises:
            Pruned: when the run need not go on.
        """
        value = metrics[self.metric.partition("/")[2]]
        if number not in self.told:
            self.trial.report(value, number)
            self.told.add(number)
        if not is_last and self.trial.should_prune():
            raise Pruned(
                f"pruned after evaluation {number}: {self.metric} {value:.4f} is not among the best of the search"
            )
