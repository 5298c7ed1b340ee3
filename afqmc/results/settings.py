"""What differs between runs, and runs that differ in their seed and fold alone as one setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Any

import numpy as np

from afqmc.results.runs import Run
from afqmc.results.translatable import msg

# what tells where a run is kept, shown or reported, and cannot change its figures
_NOT_SETTINGS = (
    "seed", "dataset.fold", "resume", "dataset.cache_dir", "trainer.logging_steps", "checkpoint.keep_weights",
    "checkpoint.save_steps", "checkpoint.save_interval_minutes", "checkpoint.on_save_failure", "trainer.detect_anomaly",
)  # fmt: skip
_NOT_GROUPS = ("tracker.", "sweep.")

_NAMED = 8  # folds, at most

MISSING = object()  # a key that a run's config does not have


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs whose configs agree in all but the seed and the fold.

    Attributes:
        name: Its values of what differs, ``lr=0.001 batch_size=32``; where nothing differs, the name
            of its first run, and how many more there are.
        values: The same by dotted key; ``MISSING`` where its config has no such key.
        runs: One a seed and fold, in their order.
        repeats: Complete runs of a seed and fold that ``runs`` holds already; they are counted nowhere.
    """

    name: str
    values: dict[str, Any]
    runs: tuple[Run, ...]
    repeats: tuple[Run, ...] = ()

    @property
    def has_folds(self) -> bool:
        """Whether its runs are folds of one file."""
        return self.runs[0].folds is not None

    @property
    def sweeps(self) -> str:
        """The sweeps that its runs belong to, in their order."""
        return ", ".join(dict.fromkeys(run.sweep for run in self.runs))

    def by_seed(self) -> list[list[Run]]:
        """The runs of each seed, in order of folds."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(canonical(run.seed), []).append(run)
        return list(found.values())

    def figures(self, metric: str) -> list[float]:
        """The metric of each run that has it."""
        return [value for run in self.runs if (value := run.figures.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        """Over the runs that have it; None where none has."""
        found = self.figures(metric)
        return float(np.mean(found)) if found else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over runs (n - 1); None for fewer than two."""
        found = self.figures(metric)
        return float(np.std(found, ddof=1)) if len(found) > 1 else None

    def mean_of(self, attribute: str) -> float | None:
        """Of a number that runs have beside metrics, such as ``seconds``; over those that have it."""
        found = [value for run in self.runs if (value := getattr(run, attribute)) is not None]
        return float(np.mean(found)) if found else None


def group_by_setting(runs: Sequence[Run]) -> list[Setting]:
    """Complete runs by setting, in order of appearance."""
    keys = varying_keys(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(canonical(run.config.get(key, MISSING)) for key in keys), []).append(run)
    return [_setting(keys, group) for group in groups.values()]


def varying_keys(runs: Sequence[Run]) -> list[str]:
    """Keys of which the runs have more than one value, the knobs at the top first, then in the configs' order."""
    every = list(dict.fromkeys(key for run in runs for key in run.config))
    settings = [key for key in every if key not in _NOT_SETTINGS and not key.startswith(_NOT_GROUPS)]
    found = [key for key in settings if len({canonical(run.config.get(key, MISSING)) for run in runs}) > 1]
    return sorted(found, key=lambda key: "." in key)


def canonical(value: Any) -> str:
    """Equal for equal values, whatever their type."""
    return "" if value is MISSING else json.dumps(value, sort_keys=True, default=str)


def repetition_key(run: Run) -> tuple[str, str]:
    """What tells a run from others of its setting: seed and fold."""
    return canonical(run.seed), canonical(run.fold)


def missing_folds(runs: Sequence[Run]) -> str | None:
    """Which folds of one seed are not there, in words; None where all are."""
    count = runs[0].folds
    there = {canonical(run.fold) for run in runs}
    absent = [
        str(number) for number in islice((one for one in range(count or 0) if canonical(one) not in there), _NAMED)
    ]
    if not absent:
        return None
    told = msg("fold {one} is", one=absent[0])
    if len(absent) > 1:
        told = msg("folds {several} are", several=", ".join(absent))
    return msg(
        "{folds} missing of the {count} (dataset.folds), so that not every pair was predicted once",
        folds=told,
        count=count,
    )


def _rank(value: Any) -> int:
    return value if isinstance(value, int) else -1


def format_value(value: Any) -> str:
    """A value as a person would type it."""
    if value is MISSING:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """``trainer.max_steps`` as ``max_steps``, where that is clear: the group's name for what it builds."""
    last = {key: key.rpartition(".")[2] for key in keys}
    vague = {name for name in last.values() if list(last.values()).count(name) > 1}
    return {
        key: key.removesuffix("._target_") if name == "_target_" else key if name in vague else name
        for key, name in last.items()
    }


def _setting(keys: list[str], runs: list[Run]) -> Setting:
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        first.setdefault(repetition_key(run), run)
    kept = sorted(first.values(), key=lambda run: (*map(_rank, (run.seed, run.fold)), run.name))
    repeats = tuple(run for run in runs if first[repetition_key(run)] is not run)
    values = {key: runs[0].config.get(key, MISSING) for key in keys}
    short = short_keys(keys)
    name = " ".join(f"{short[key]}={format_value(value)}" for key, value in values.items() if value is not MISSING)
    more = f" (+{len(kept) - 1})" if len(kept) > 1 else ""
    return Setting(name or f"{kept[0].name}{more}", values, tuple(kept), repeats)


_PLAIN = (int, float, str, type(None))


def fill_defaults(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs with the schema's default for every key that other runs have and they lack; and these keys."""
    every = dict.fromkeys(key for run in runs for key in run.config)
    if all(len(run.config) == len(every) for run in runs):
        return list(runs), []
    defaults = {key: value for key, value in _defaults().items() if key in every}
    lacking = [{key: defaults[key] for key in defaults if not _has(run.config, key)} for run in runs]
    keys = dict.fromkeys(key for of_run in lacking for key in of_run)
    return [replace(run, config={**run.config, **of_run}) for run, of_run in zip(runs, lacking, strict=True)], [*keys]


def _has(config: dict[str, Any], key: str) -> bool:
    """Whether there is the key, or what it unfolds to."""
    return key in config or any(other.startswith(f"{key}.") for other in config)


def _defaults() -> dict[str, Any]:
    """Of the keys that every config has had since they exist, by dotted key."""
    from afqmc.config import Config
    from afqmc.config.error_messages import schema_fields

    found = {key: item.default for key, (item, _) in schema_fields(Config).items()}
    plain = {key: value.name if isinstance(value, Enum) else value for key, value in found.items()}
    return {key: value for key, value in plain.items() if isinstance(value, _PLAIN)}
