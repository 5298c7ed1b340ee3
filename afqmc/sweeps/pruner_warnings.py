"""Warn about pruners that cannot prune anything, given the numbers of trials and evaluations."""

from __future__ import annotations

from afqmc.sweeps.study import StudyConfig

_REMEDIES = {
    "median": "more than n_startup_trials=5 trials, more evaluations, or a smaller n_warmup_steps",
    "successive_halving": "more evaluations, or a smaller min_resource or min_early_stopping_rate",
    "hyperband": "more evaluations, or a smaller min_resource or reduction_factor",
    "wilcoxon": "more seeds or folds, or a higher p_threshold",
}


def explain_idle_pruner(settings: StudyConfig, study_name: str, trials: int, evaluations: int) -> str | None:
    """Return a warning if the pruner cannot prune any trial, else None.

    The pruner is run in memory on sequential trials, each worse than all before it at every evaluation.

    Args:
        settings: The settings of the search.
        study_name: The name of the study, by which Hyperband assigns trials to brackets.
        trials: The number of trials.
        evaluations: The number of evaluations per trial; none is pruned after the last one.
    """
    if settings.pruner == "none" or _prunes(settings, study_name, trials, evaluations):
        return None
    problem = f"cannot prune anything in {trials} trials with {evaluations} evaluations each"
    keys = "hydra.sweeper.n_trials, epochs or trainer.eval_steps, hydra.sweeper.pruner_kwargs"
    return f"hydra.sweeper.pruner={settings.pruner} {problem}; this would help: {_REMEDIES[settings.pruner]} ({keys})"


def _prunes(settings: StudyConfig, study_name: str, trials: int, evaluations: int) -> bool:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=study_name,
        direction="maximize",
        pruner=settings.build_pruner(),
        sampler=optuna.samplers.RandomSampler(),
    )
    for number in range(trials):
        trial = study.ask()
        for step in range(1, evaluations + 1):
            value = -float(number * (evaluations + step))  # all differences are distinct: ties weaken Wilcoxon's test
            trial.report(value, step)
            if step < evaluations and trial.should_prune():
                return True
        study.tell(trial, value)
    return False
