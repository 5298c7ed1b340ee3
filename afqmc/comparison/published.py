"""Compare settings with published results, of which only a number is known: ``--published afqmc``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.comparison.distributions import normal_quantile, t_quantile
from afqmc.comparison.pairwise import ALPHA, degrees_of_freedom
from afqmc.comparison.wording import display_name, format_interval, format_size
from afqmc.config.safe_yaml import literal_yaml
from afqmc.results.settings import Setting
from afqmc.utils.errors import InputError
from afqmc.utils.language import msg

# standard deviation of the accuracy over seeds where it is not known: that of BERT-like models on AFQMC's dev pairs
_SEED_SD = 0.004


@dataclass(frozen=True)
class PublishedResult:
    """A published value of a metric, in the metric's unit.

    Attributes:
        model: Name of the model.
        value: The value.
        source: Where it was published.
        runs: Number of runs behind it; None if that is not stated.
        chosen_from: Number of settings of which it is the best on these pairs; 1 if it is not a choice.
        protocol: How it was obtained, as far as the source says.
    """

    model: str
    value: float
    source: str
    runs: int | None = None
    chosen_from: int = 1
    protocol: str = ""


@dataclass(frozen=True)
class PublishedResults:
    """Published values of one metric on the same pairs.

    Attributes:
        metric: As ``split/name``; only accuracies have a known error.
        pairs: Number of pairs of the split.
        results: The values.
    """

    metric: str
    pairs: int
    results: tuple[PublishedResult, ...]

    @classmethod
    def read(cls, name: str) -> PublishedResults:
        """Read the results that come with the package by their name, or those of a YAML file.

        Raises:
            InputError: if there is no such name or file, or its content is invalid.
        """
        packaged = Path(__file__).with_name("published")
        is_file = name.endswith((".yaml", ".yml"))
        path = Path(name) if is_file else packaged / f"{name}.yaml"
        if not is_file and not path.is_file():
            known = ", ".join(sorted(file.stem for file in packaged.glob("*.yaml")))
            raise InputError(f"--published {name}: must be {known} or a .yaml file")
        try:
            content = literal_yaml(path)
        except InputError as error:
            raise InputError(f"--published {error}") from error
        return cls._parsed(name, content)

    @classmethod
    def _parsed(cls, name: str, content: Any) -> PublishedResults:
        problem = f"--published {name}: invalid"
        try:
            metric, pairs, rows = content["metric"], content["pairs"], content["results"]
            results = tuple(PublishedResult(**row) for row in rows)
        except (KeyError, TypeError) as error:
            raise InputError(f"{problem}: needs metric, pairs, and results with model, value and source") from error
        if not isinstance(metric, str) or not metric.endswith("/accuracy"):
            raise InputError(f"{problem}: metric={metric}: must be an accuracy such as dev/accuracy")
        if not isinstance(pairs, int) or pairs < 2:
            raise InputError(f"{problem}: pairs={pairs}: must be a whole number of at least 2")
        for result in results:
            if not isinstance(result.value, float) or not 0 < result.value < 1:
                raise InputError(
                    f"{problem}: {result.model}: value={result.value}: must be between 0 and 1, not percent"
                )
        return cls(metric, pairs, results)


def published_sentences(
    settings: Sequence[Setting], compared: Sequence[Setting], metric: str, examples: int, published: PublishedResults
) -> list[str]:
    """Compare each of the compared settings with each published value, and return one sentence per pair.

    Only the published number is known, not its predictions. Its error is therefore taken to be independent of the
    settings' errors, which makes the intervals wider than for runs that are compared pair by pair.

    Args:
        settings: All settings, by rank.
        compared: The settings to compare.
        metric: As ``split/name``.
        examples: Number of pairs of the runs.
        published: The published values.

    Raises:
        InputError: if the published values are of another metric, or of other pairs.
    """
    if metric != published.metric:
        raise InputError(f"--metric {metric}: the results of --published are {published.metric}")
    if examples != published.pairs:
        raise InputError(f"--published: is about {published.pairs} pairs, the runs have {examples}")
    return [
        _sentence(display_name(setting, settings), setting.figures(metric), metric, result, examples)
        for setting in compared
        for result in published.results
    ]


def _sentence(name: str, values: Sequence[float], metric: str, result: PublishedResult, examples: int) -> str:
    mean = float(np.mean(values))
    advantage = _choice_advantage(result)
    difference = mean - (result.value - advantage)
    margin = _margin(values, result, examples)
    interval = format_interval(difference - margin, difference + margin, metric)
    number = f"{result.value:.4f}"
    if result.chosen_from > 1:
        published = msg(
            "{model} {number} ({source}, the best of {count}: {advantage} subtracted)",
            model=result.model,
            number=number,
            source=result.source,
            count=result.chosen_from,
            advantage=format_size(metric, advantage),
        )
    else:
        runs = msg("n not stated") if result.runs is None else msg("n = {runs}", runs=result.runs)
        published = msg(
            "{model} {number} ({source}, {runs})", model=result.model, number=number, source=result.source, runs=runs
        )
    if result.protocol:
        published = msg("{published}, {protocol}", published=published, protocol=result.protocol)
    parts = {
        "name": name,
        "value": f"{mean:.4f}",
        "published": published,
        "size": format_size(metric, difference),
        "interval": interval,
    }
    if difference - margin > 0:
        return msg("{name} {value} is better than {published}: {size} (95% CI {interval})", **parts)
    if difference + margin < 0:
        return msg("{name} {value} is worse than {published}: {size} (95% CI {interval})", **parts)
    return msg("{name} {value} cannot be told apart from {published}: {size} (95% CI {interval})", **parts)


def _margin(values: Sequence[float], result: PublishedResult, examples: int) -> float:
    """Return half of the 95% interval of the difference between the mean accuracy of a setting and a published one.

    If the seeds of the setting vary more than is assumed for published values, Student's t has their n - 1 degrees of
    freedom for this part (Satterthwaite); all other parts are known from many pairs, or assumed.
    """
    mean, runs = float(np.mean(values)), len(values)
    own = float(np.var(values, ddof=1)) if runs > 1 else 0.0
    of_seeds = max(own, _SEED_SD**2) / runs
    variance = mean * (1 - mean) / examples + of_seeds + _published_variance(result, examples)
    estimated = of_seeds if own > _SEED_SD**2 else 0.0
    parts = [(np.asarray(variance - estimated), examples - 1), (np.asarray(estimated), runs - 1)]
    df = degrees_of_freedom(np.asarray(variance), parts)
    return float(t_quantile(1 - ALPHA / 2, df)) * math.sqrt(variance)


def _published_variance(result: PublishedResult, examples: int) -> float:
    return result.value * (1 - result.value) / examples + _SEED_SD**2 / (result.runs or 1)


def _choice_advantage(result: PublishedResult) -> float:
    """Return by how much a value is too high as the best of several settings that are equally good.

    This is the expected maximum of standard normal numbers, by Blom's formula, times the standard deviation over seeds.
    """
    count = result.chosen_from
    return normal_quantile((count - 0.375) / (count + 0.25)) * _SEED_SD if count > 1 else 0.0
