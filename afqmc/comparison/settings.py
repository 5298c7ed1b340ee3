"""What differs between runs, and runs that differ in their seed alone as one setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afqmc.comparison.runs import Run

# what tells where a run is kept, shown or reported, and cannot change its figures
_NOT_SETTINGS = (
    "seed", "resume", "dataset.cache_dir", "trainer.log_steps", "trainer.save_total_limit", "trainer.save_steps",
    "trainer.save_minutes", "trainer.on_save_failure", "trainer.detect_anomaly",
)  # fmt: skip
_NOT_GROUPS = ("tracker.", "sweep.")

MISSING = object()  # a key that a run's config does not have


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs whose configs agree in all but the seed.

    Attributes:
        name: Its values of what differs, ``lr=0.001 batch_size=32``; a run's name where nothing differs.
        values: The same by dotted key; ``MISSING`` where its config has no such key.
        runs: One a seed, in order of seeds.
        repeats: Complete runs of a seed that ``runs`` holds already; they are counted nowhere.
    """

    name: str
    values: dict[str, Any]
    runs: tuple[Run, ...]
    repeats: tuple[Run, ...] = ()

    def figures(self, metric: str) -> list[float]:
        """The metric of each run that has it."""
        return [value for run in self.runs if (value := run.figures.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        """Over the runs that have it; None where none has."""
        found = self.figures(metric)
        return float(np.mean(found)) if found else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over seeds (n - 1); None for fewer than two."""
        found = self.figures(metric)
        return float(np.std(found, ddof=1)) if len(found) > 1 else None

    def mean_of(self, attribute: str) -> float | None:
        """Of a number that runs have beside metrics, such as ``seconds``; over those that have it."""
        found = [value for run in self.runs if (value := getattr(run, attribute)) is not None]
        return float(np.mean(found)) if found else None


def fold(runs: Sequence[Run]) -> list[Setting]:
    """Complete runs by setting, in order of appearance."""
    keys = differing(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(canonical(run.config.get(key, MISSING)) for key in keys), []).append(run)
    return [_setting(keys, group) for group in groups.values()]


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys of which the runs have more than one value, the knobs at the top first, then in the configs' order."""
    every = list(dict.fromkeys(key for run in runs for key in run.config))
    settings = [key for key in every if key not in _NOT_SETTINGS and not key.startswith(_NOT_GROUPS)]
    found = [key for key in settings if len({canonical(run.config.get(key, MISSING)) for run in runs}) > 1]
    return sorted(found, key=lambda key: "." in key)


def canonical(value: Any) -> str:
    """Equal for equal values, whatever their type."""
    return "" if value is MISSING else json.dumps(value, sort_keys=True, default=str)


def in_short(value: Any) -> str:
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
    by_seed: dict[str, Run] = {}
    for run in runs:
        by_seed.setdefault(canonical(run.seed), run)
    kept = sorted(by_seed.values(), key=lambda run: (run.seed if isinstance(run.seed, int) else -1, run.name))
    repeats = tuple(run for run in runs if by_seed[canonical(run.seed)] is not run)
    values = {key: runs[0].config.get(key, MISSING) for key in keys}
    short = short_keys(keys)
    name = " ".join(f"{short[key]}={in_short(value)}" for key, value in values.items() if value is not MISSING)
    return Setting(name or runs[0].name, values, tuple(kept), repeats)
