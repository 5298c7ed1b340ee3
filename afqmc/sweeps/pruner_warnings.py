"""Whether a pruner can prune anything at all, in a search of so many trials with so many evaluations each."""

from __future__ import annotations

from afqmc.sweeps.study import StudyConfig

_REMEDIES = {
    "median": "more than n_startup_trials=5 trials, more evaluations, or a smaller n_warmup_steps",
    "successive_halving": "more evaluations, or a smaller min_resource or min_early_stopping_rate",
    "hyperband": "more evaluations, or a smaller min_resource or reduction_factor",
    "wilcoxon": "more seeds or folds, or a higher p_threshold",
}


def why_idle(settings: StudyConfig, study_name: str, trials: int, evaluations: int) -> str | None:
    """Why the pruner can prune nothing, if so: what would help.

    It is tried in memory, on trials each of which is worse than all before it at every evaluation, one after the other.

    Args:
        settings: Of the search.
        study_name: Hyperband draws the bracket of a trial by it.
        trials: How many there will be.
        evaluations: Of each; the last one is never pruned.
    """
    if settings.pruner == "none" or _prunes(settings, study_name, trials, evaluations):
        return None
    told = f"can prune nothing in {trials} trials with {evaluations} evaluations each"
    keys = "hydra.sweeper.n_trials, epochs or trainer.eval_steps, hydra.sweeper.pruner_args"
    return f"hydra.sweeper.pruner={settings.pruner} {told}; what helps: {_REMEDIES[settings.pruner]} ({keys})"


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
        for place in range(1, evaluations + 1):
            value = -float(
                number * (evaluations + place)
            )  # no two differences alike: a tie would weaken Wilcoxon's test
            trial.report(value, place)
            if place < evaluations and trial.should_prune():
                return True
        study.tell(trial, value)
    return False
