"""What a search says at its end: its best trials, or that no run learned anything."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from afqmc.run_dir import RunDir
from hydra_plugins.afqmc_sweeps._trials import short

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_LISTED = 5
_NEXT_STEP = "search higher values of lr or more epochs, or name hydra.sweeper.objectives=[dev/auc]"


def say_best(study: Study, objectives: Sequence[str], runs: Sequence[RunDir]) -> None:
    """Log the best trials; warn instead where every run collapsed, and also where none beats the majority.

    Args:
        study: With one complete trial at least.
        objectives: Its own.
        runs: Those that are complete.
    """
    summaries = [run.read_summary() for run in runs]
    if all(one["collapsed_onto"] is not None for one in summaries):
        told = f"all {len(runs)} runs collapsed (one label for nearly every dev pair): no trial is better than another"
        log.warning("%s; %s", told, _NEXT_STEP)
        return
    groups: dict[tuple[float, ...], list[FrozenTrial]] = {}
    for trial in study.best_trials:
        groups.setdefault(tuple(trial.values), []).append(trial)
    for values, trials in groups.items():
        reached = ", ".join(f"{name} {value:.4f}" for name, value in zip(objectives, values, strict=True))
        first = trials[0]
        params = " ".join(f"{key}={short(value)}" for key, value in first.params.items())
        log.info("best: trial %d, %s: %s%s", first.number, reached, params, _equal(trials[1:]))
    if not any(one["best"]["dev/accuracy"] > one["best"]["dev/majority_accuracy"] for one in summaries):
        told = f"none of {len(runs)} runs beats the majority (accuracy of always giving the most frequent label)"
        log.warning("%s; %s", told, _NEXT_STEP)


def _equal(others: Sequence[FrozenTrial]) -> str:
    """The rest of a tie, by number."""
    if not others:
        return ""
    numbers = ", ".join(str(trial.number) for trial in others[:_LISTED])
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    return f" (the same values: trial {numbers}{more})"
