"""The comparison as JSON has it."""

from __future__ import annotations

from typing import Any

from afqmc.comparison.report import Comparison, Report
from afqmc.comparison.runs import Run
from afqmc.comparison.settings import MISSING, Setting


def as_dict(report: Report) -> dict[str, Any]:
    """For JSON: settings by name, one entry a run."""
    return {
        "metric": report.metric,
        "higher_is_better": report.higher_is_better,
        "examples": None if report.family is None else report.family.examples,
        "settings": [
            {
                **_setting_as_dict(setting, report.metric),
                "folds_together": report.together.get(setting),
                "data_group": report.data_of[setting],
            }
            for setting in report.settings
        ],
        "unfinished": [_run_as_dict(run) for run in report.unfinished],
        "comparisons": [_comparison_as_dict(comparison) for comparison in report.comparisons],
        "refused": [{"setting": setting.name, "why": reason} for setting, reason in report.refused],
        "notes": report.notes,
    }


def _setting_as_dict(setting: Setting, metric: str) -> dict[str, Any]:
    return {
        "name": setting.name,
        "values": {key: value for key, value in setting.values.items() if value is not MISSING},
        "mean": setting.mean(metric),
        "sd": setting.deviation(metric),
        "n": len(setting.figures(metric)),
        "runs": [_run_as_dict(run) for run in setting.runs],
        "repeats": [_run_as_dict(run) for run in setting.repeats],
    }


def _run_as_dict(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "sweep": run.sweep,
        "status": run.status,
        "why": run.why,
        "seed": run.seed,
        "fold": run.fold,
        "figures": run.figures,
        "monitor": run.monitor,
        "collapsed_onto": run.collapsed_onto,
        "best_step": run.best_step,
        "best_epoch": run.best_epoch,
        "seconds": run.seconds,
        "pairs_per_second": run.pairs_per_second,
        "peak_memory_gib": run.peak_memory_gib,
    }


def _comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    split = comparison.mcnemar
    return {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "sentence": comparison.sentence,
        "is_found": comparison.difference.is_found,
        **vars(comparison.difference),
        "mcnemar": None if split is None else vars(split),
    }
