"""Hyperparameters that vary between the runs, as axes of plots, and their importance for the metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afqmc.comparison.report import ComparisonReport
from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, canonical, format_value, short_keys
from afqmc.utils.language import Message, msg

MIN_RUNS = 10  # with fewer, the shares of a random forest are noise
_LOG_RATIO = 10  # axes are logarithmic if max / min is at least this
_NUM_TREES, _MAX_DEPTH = 64, 6  # deeper trees change a share by less than 0.01 and take minutes for 1,000 runs
_MAX_NUMBER = 1e30  # numbers above, and NaN, are not drawn on a numeric axis


@dataclass(frozen=True)
class Axis:
    """An axis of a plot: a key, or several keys that always change together, so that their effects cannot be separated.

    Attributes:
        name: The short name of the first key, shown on the page.
        keys: All dotted keys.
        values: The value of each run: numbers if ``is_number``, else texts.
        is_number: Whether all values are numbers.
        is_log: Whether to draw the axis on a logarithmic scale.
    """

    name: str
    keys: tuple[str, ...]
    values: tuple[Any, ...]
    is_number: bool
    is_log: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the axis as plain data for JSON."""
        return {**vars(self), "keys": list(self.keys), "values": list(self.values)}


def axes(report: ComparisonReport, runs: Sequence[Run]) -> list[Axis]:
    """Return the axes on which these runs vary, in the order of the report's keys."""
    groups: dict[object, list[str]] = {}
    for key in report.keys:
        codes: dict[str, int] = {}  # value: its number, in the order of appearance
        pattern = tuple(codes.setdefault(canonical(run.config.get(key, MISSING)), len(codes)) for run in runs)
        if len(codes) > 1:
            # If each run has its own value, as in a random search, all such keys have the pattern (0, 1, 2, ...),
            # which does not mean that they change together.
            groups.setdefault(key if len(codes) == len(runs) else pattern, []).append(key)
    short = short_keys(report.keys)
    return [_axis(keys, short, runs) for keys in groups.values()]


def _axis(keys: Sequence[str], short: dict[str, str], runs: Sequence[Run]) -> Axis:
    """Return the axis of keys that change together, with the values of the first one."""
    values = [run.config.get(keys[0], MISSING) for run in runs]
    numbers = [
        value for value in values if type(value) in (int, float) and abs(value) < _MAX_NUMBER
    ]  # not isinstance: a bool is a category
    if len(numbers) < len(values):
        return Axis(short[keys[0]], tuple(keys), tuple(map(format_value, values)), is_number=False, is_log=False)
    is_log = min(numbers) > 0 and max(numbers) >= _LOG_RATIO * min(numbers)
    return Axis(short[keys[0]], tuple(keys), tuple(map(float, numbers)), is_number=True, is_log=is_log)


def importance(
    report: ComparisonReport, runs: Sequence[Run], axes: Sequence[Axis]
) -> tuple[list[float] | None, Message]:
    """Return the share of the metric's variance that each axis explains, and a note on the method.

    Functional ANOVA (Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance"), computed by
    Optuna.

    Returns:
        Shares from 0 to 1 in the order of ``axes``, None if they cannot be computed; and the method, or the reason.
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
        trees=_NUM_TREES,
    )


def _shares(axes: Sequence[Axis], values: Sequence[float | None], higher_is_better: bool) -> list[float]:
    """Fit a random forest to the runs that have the metric; return the shares in the order of ``axes``."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [str(index) for index in range(len(axes))]
    distributions = {name: _distribution(axis) for name, axis in zip(names, axes, strict=True)}
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    for index, value in enumerate(values):
        if value is not None:
            params = {name: axis.values[index] for name, axis in zip(names, axes, strict=True)}
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_NUM_TREES, max_depth=_MAX_DEPTH, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    ordered = [float(shares[name]) for name in names]
    return [share if math.isfinite(share) else 0.0 for share in ordered]  # NaN where the forest has no variance


def _distribution(axis: Axis) -> Any:
    """Return Optuna's range of the axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.is_number:
        return FloatDistribution(min(axis.values), max(axis.values), log=axis.is_log)
    return CategoricalDistribution(tuple(dict.fromkeys(axis.values)))
