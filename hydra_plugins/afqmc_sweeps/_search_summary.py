"""Log the result of a search: its best trials, or a warning that no run learned anything."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from afqmc.run_dir import RunDir
from hydra_plugins.afqmc_sweeps._trials import format_short

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_MAX_LISTED = 5
_NEXT_STEP = "search higher values of lr or more epochs, or set hydra.sweeper.objectives=[dev/roc_auc]"


def log_best_trials(study: Study, objectives: Sequence[str], runs: Sequence[RunDir]) -> None:
    """Log the best trials and warn if no run beats the majority; only warn if all runs collapsed.

    Args:
        study: A study with at least one complete trial.
        objectives: The objectives of the study.
        runs: The complete runs.
    """
    summaries = [run.read_summary() for run in runs]
    if all(summary["collapsed_label"] is not None for summary in summaries):
        message = (
            f"all {len(runs)} runs collapsed (one label for nearly every dev pair): no trial is better than another"
        )
        log.warning("%s; %s", message, _NEXT_STEP)
        return
    groups: dict[tuple[float, ...], list[FrozenTrial]] = {}
    for trial in study.best_trials:
        groups.setdefault(tuple(trial.values), []).append(trial)
    for values, trials in groups.items():
        scores = ", ".join(f"{name} {value:.4f}" for name, value in zip(objectives, values, strict=True))
        first = trials[0]
        params = " ".join(f"{key}={format_short(value)}" for key, value in first.params.items())
        log.info("best: trial %d, %s: %s%s", first.number, scores, params, _list_ties(trials[1:]))
    best = [summary["best"] for summary in summaries]
    if not any(row["dev/accuracy"] > row["dev/majority_accuracy"] for row in best):
        message = f"none of {len(runs)} runs beats the majority (accuracy of always giving the most frequent label)"
        log.warning("%s; %s", message, _NEXT_STEP)


def _list_ties(others: Sequence[FrozenTrial]) -> str:
    """List the other trials with the same values."""
    if not others:
        return ""
    numbers = ", ".join(str(trial.number) for trial in others[:_MAX_LISTED])
    more = f" and {len(others) - _MAX_LISTED} more" if len(others) > _MAX_LISTED else ""
    return f" (the same values: trial {numbers}{more})"
