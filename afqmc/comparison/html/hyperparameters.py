"""Hyperparameters that vary between the runs, as axes of plots, and their importance for the metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afqmc.comparison.report import Report
from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, canonical, format_value, short_keys
from afqmc.results.translatable import Message, msg

MIN_RUNS = 10  # a random forest learns nothing from fewer
_LOG_RATIO = 10  # axes are logarithmic if max / min is at least this
_TREES, _DEPTH = 64, 6  # deeper trees change the third digit of a share, and take minutes with a thousand runs


@dataclass(frozen=True)
class Axis:
    """Keys that always change together, so that their effects cannot be separated.

    Attributes:
        name: Short name of the first key.
        keys: All dotted keys.
        values: One per run: numbers if ``is_number``, else texts.
        is_number: Whether all values are numbers.
        is_log: Whether the axis is logarithmic.
    """

    name: str
    keys: tuple[str, ...]
    values: tuple[Any, ...]
    is_number: bool
    is_log: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the axis as plain data for JSON."""
        return {**vars(self), "keys": list(self.keys), "values": list(self.values)}


def axes(report: Report, runs: Sequence[Run]) -> list[Axis]:
    """Return the axes on which these runs vary, in the order of the report's keys."""
    keys_by_pattern: dict[tuple[object, ...], list[str]] = {}
    for key in report.keys:
        indices: dict[str, int] = {}
        pattern = tuple(indices.setdefault(canonical(run.config.get(key, MISSING)), len(indices)) for run in runs)
        if 1 < len(indices) == len(runs):
            # in a random search every run has its own value: equal patterns do not mean that keys change together
            keys_by_pattern[key,] = [key]
        elif len(indices) > 1:
            keys_by_pattern.setdefault(pattern, []).append(key)
    short = short_keys(report.keys)
    return [_axis(keys, short, runs) for keys in keys_by_pattern.values()]


def _axis(keys: Sequence[str], short: dict[str, str], runs: Sequence[Run]) -> Axis:
    values = [run.config.get(keys[0], MISSING) for run in runs]
    numbers = [value for value in values if type(value) in (int, float) and abs(value) < 1e30]
    if len(numbers) < len(values):
        return Axis(short[keys[0]], tuple(keys), tuple(map(format_value, values)), False, False)
    is_log = min(numbers) > 0 and max(numbers) >= _LOG_RATIO * min(numbers)
    return Axis(short[keys[0]], tuple(keys), tuple(map(float, numbers)), True, is_log)


def importance(report: Report, runs: Sequence[Run], axes: Sequence[Axis]) -> tuple[list[float] | None, Message]:
    """Return the share of the metric's variance that each axis explains (functional ANOVA), or None; and a note.

    See Hutter et al. 2014, "An efficient approach for assessing hyperparameter importance"; Optuna computes it.
    """
    values = [run.figures.get(report.metric) for run in runs]
    count = sum(value is not None for value in values)
    if len(axes) < 2:
        return None, msg("importance requires at least two varying settings; these runs have {count}", count=len(axes))
    if count < MIN_RUNS:
        return None, msg(
            "importance requires at least {required} runs; there are {count}", required=MIN_RUNS, count=count
        )
    if len(set(values) - {None}) < 2:
        return None, msg("all runs have the same metric: there is nothing to explain")
    shares = _shares(axes, values, report.higher_is_better)
    return shares, msg(
        "functional ANOVA of {count} runs with a random forest of {trees} trees (fixed seed): the shares of the "
        "variance that the settings explain, within the values tried. The variance over seeds is not included. With "
        "few runs, chance looks like importance too",
        count=count,
        trees=_TREES,
    )


def _shares(axes: Sequence[Axis], values: Sequence[float | None], higher_is_better: bool) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [str(index) for index in range(len(axes))]
    distributions = {name: _distribution(axis) for name, axis in zip(names, axes, strict=True)}
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    for run, value in enumerate(values):
        if value is not None:
            params = {name: axis.values[run] for name, axis in zip(names, axes, strict=True)}
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, max_depth=_DEPTH, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return [share if math.isfinite(share := float(shares[name])) else 0.0 for name in names]


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.is_number:
        return FloatDistribution(min(axis.values), max(axis.values), log=axis.is_log)
    return CategoricalDistribution(tuple(dict.fromkeys(axis.values)))
