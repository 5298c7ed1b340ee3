"""The settings of a sweep as axes, and how much each matters to the metric."""

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

ENOUGH = 10  # runs, below which a forest has nothing to learn from
_SPREAD = 10  # highest value over lowest, from which on an axis is logarithmic
_TREES, _DEPTH = 64, 6  # deeper trees change the third digit of a share, and take minutes on a thousand runs


@dataclass(frozen=True)
class Axis:
    """Settings that change together, and so cannot be told apart.

    Attributes:
        name: Of the first of them, in short.
        keys: All of them, dotted.
        values: Of each run: numbers if ``is_number``, else texts.
        is_number: Whether the runs lie on a line.
        is_log: Whether that is one of factors.
    """

    name: str
    keys: tuple[str, ...]
    values: tuple[Any, ...]
    is_number: bool
    is_log: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "keys": list(self.keys), "values": list(self.values)}


def axes(report: Report, runs: Sequence[Run]) -> list[Axis]:
    """Those of which these runs have several values, in the order of the report's keys."""
    together: dict[tuple[object, ...], list[str]] = {}
    for key in report.keys:
        places: dict[str, int] = {}
        marks = tuple(places.setdefault(canonical(run.config.get(key, MISSING)), len(places)) for run in runs)
        if 1 < len(places) == len(runs):  # each run its own, as in a random search: that says nothing of going together
            together[key,] = [key]
        elif len(places) > 1:
            together.setdefault(marks, []).append(key)
    short = short_keys(report.keys)
    return [_axis(keys, short, runs) for keys in together.values()]


def _axis(keys: Sequence[str], short: dict[str, str], runs: Sequence[Run]) -> Axis:
    values = [run.config.get(keys[0], MISSING) for run in runs]
    numbers = [value for value in values if type(value) in (int, float) and abs(value) < 1e30]
    if len(numbers) < len(values):
        return Axis(short[keys[0]], tuple(keys), tuple(map(format_value, values)), False, False)
    is_log = min(numbers) > 0 and max(numbers) >= _SPREAD * min(numbers)
    return Axis(short[keys[0]], tuple(keys), tuple(map(float, numbers)), True, is_log)


def importance(report: Report, runs: Sequence[Run], found: Sequence[Axis]) -> tuple[list[float] | None, Message]:
    """The share of the metric's variance that each axis explains (functional ANOVA), or None, and what to know of it.

    Hutter et al. 2014, "An efficient approach for assessing hyperparameter importance", as Optuna computes it.
    """
    figures = [run.figures.get(report.metric) for run in runs]
    known = sum(figure is not None for figure in figures)
    if len(found) < 2:
        return None, msg("importance is of two settings or more; these runs differ in {count}", count=len(found))
    if known < ENOUGH:
        return None, msg("importance needs {enough} runs or more; there are {count}", enough=ENOUGH, count=known)
    if len(set(figures) - {None}) < 2:
        return None, msg("every run has the same figure: there is nothing to explain")
    shares = _shares(found, figures, report.higher_is_better)
    return shares, msg(
        "functional ANOVA of {count} runs by a forest of {trees} trees, with a fixed seed: the share of what the "
        "settings explain, within the values tried; what seeds do is no part of it; of few runs, chance "
        "looks like importance too",
        count=known,
        trees=_TREES,
    )


def _shares(found: Sequence[Axis], figures: Sequence[float | None], higher_is_better: bool) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [str(number) for number in range(len(found))]
    ranges = {name: _distribution(axis) for name, axis in zip(names, found, strict=True)}
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    for run, figure in enumerate(figures):
        if figure is not None:
            params = {name: axis.values[run] for name, axis in zip(names, found, strict=True)}
            study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=figure))
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
