"""Find the settings that differ between runs, and group runs that differ only in seed and fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING as NO_FACTORY
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Any

import numpy as np

from afqmc.results.runs import Run
from afqmc.utils.language import msg

# keys that repeat a setting, or only affect where a run is stored, shown or reported, not its figures
_NOT_SETTINGS = (
    "seed", "dataset.fold", "resume", "dataset.cache_dir", "trainer.logging_steps", "checkpoint.keep_weights",
    "checkpoint.save_steps", "checkpoint.save_interval_minutes", "checkpoint.on_save_failure", "trainer.detect_anomaly",
)  # fmt: skip
_NOT_GROUPS = ("tracker.", "sweep.")
VARIANT, BASELINE = "sweep.variant", "sweep.baseline"

_MAX_NAMED = 8  # missing folds named in a message

_ENCODER = json.JSONEncoder(sort_keys=True, default=str)
_PLAIN = {str, int, bool, type(None)}

MISSING = object()  # a key that a run's config does not have


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs whose configs differ only in seed and fold.

    Attributes:
        name: The values that differ from other settings, such as ``lr=0.001 batch_size=32``. If there is only one
            setting, the name of its first run and the number of the others.
        values: The same values by dotted key; ``MISSING`` if the config lacks the key.
        runs: One run per seed and fold, sorted.
        repeats: Further runs of a seed and fold that is already in ``runs``; not counted.
    """

    name: str
    values: dict[str, Any]
    runs: tuple[Run, ...]
    repeats: tuple[Run, ...] = ()

    @property
    def has_folds(self) -> bool:
        """Whether its runs are cross-validation folds."""
        return self.runs[0].folds is not None

    @property
    def sweeps(self) -> str:
        """The names of the sweeps that its runs belong to, in order."""
        return ", ".join(dict.fromkeys(run.sweep for run in self.runs))

    def has_config_of(self, run: Run) -> bool:
        """Return whether a run, such as one that failed, has the values of this setting."""
        return bool(self.values) and all(
            canonical(run.config.get(key, MISSING)) == canonical(value) for key, value in self.values.items()
        )

    def by_seed(self) -> list[list[Run]]:
        """Return the runs of each seed, sorted by fold."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(canonical(run.seed), []).append(run)
        return list(groups.values())

    def figures(self, metric: str) -> list[float]:
        """Return the metric of each run that has it."""
        return [value for run in self.runs if (value := run.figures.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the runs that have the metric; None if none has it."""
        values = self.figures(metric)
        return float(np.mean(values)) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation (n - 1) over runs; None for fewer than two."""
        values = self.figures(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def mean_of(self, attribute: str) -> float | None:
        """Return the mean of a numeric attribute, such as ``seconds``, over the runs that have it."""
        values = [value for run in self.runs if (value := getattr(run, attribute)) is not None]
        return float(np.mean(values)) if values else None


def group_by_setting(runs: Sequence[Run], keys: Sequence[str] | None = None) -> list[Setting]:
    """Group complete runs by setting, in order of appearance; ``keys`` are their ``varying_keys``, if known."""
    keys = varying_keys(runs) if keys is None else keys
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(canonical(run.config.get(key, MISSING)) for key in keys), []).append(run)
    return [_setting(keys, group) for group in groups.values()]


def varying_keys(runs: Sequence[Run]) -> list[str]:
    """Return the settings that differ between the runs, top-level keys first, then in config order.

    If all runs are variants of a sweep, this is the variant's name, and the settings that differ within a variant.
    """
    variants: dict[Any, list[Run]] = {}
    for run in runs:
        variants.setdefault(run.config.get(VARIANT), []).append(run)
    if len(variants) > 1 and None not in variants:
        within = [key for group in variants.values() for key in _varying_keys(group)]
        return [VARIANT, *dict.fromkeys(within)]
    return _varying_keys(runs)


def _varying_keys(runs: Sequence[Run]) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in run.config)
    settings = [key for key in keys if key not in _NOT_SETTINGS and not key.startswith(_NOT_GROUPS)]
    varying = [key for key in settings if _differ([run.config.get(key, MISSING) for run in runs])]
    return sorted(varying, key=lambda key: "." in key)


def _differ(values: Sequence[Any]) -> bool:
    types = set(map(type, values))
    is_plain = len(types) == 1 and types <= _PLAIN  # then equal values have equal canonical texts; it is faster
    return len(set(values) if is_plain else set(map(canonical, values))) > 1


def canonical(value: Any) -> str:
    """Return a string that is equal for equal values, for use as a dictionary key."""
    return "" if value is MISSING else _ENCODER.encode(value)


def repetition_key(run: Run) -> tuple[str, str]:
    """Return seed and fold, which identify a run within its setting."""
    return canonical(run.seed), canonical(run.fold)


def missing_folds(runs: Sequence[Run]) -> str | None:
    """Describe which folds of one seed are missing, or return None if all are there."""
    count = runs[0].folds
    existing = {canonical(run.fold) for run in runs}
    missing = (str(fold) for fold in range(count or 0) if canonical(fold) not in existing)
    names = list(islice(missing, _MAX_NAMED))
    if not names:
        return None
    return msg(
        "{folds} missing of the {count} (dataset.num_folds), so not every pair was predicted once",
        folds=msg("fold {one} is", one=names[0])
        if len(names) == 1
        else msg("folds {several} are", several=", ".join(names)),
        count=count,
    )


def _sort_key(value: Any) -> int:
    return value if isinstance(value, int) else -1


def format_value(value: Any) -> str:
    """Format a value as it would be typed in an override."""
    if value is MISSING:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Shorten keys to their last part where that is unambiguous; ``optimizer._target_`` becomes ``optimizer``."""
    last = {key: key.rpartition(".")[2] for key in keys}
    ambiguous = {name for name in last.values() if list(last.values()).count(name) > 1}
    return {
        key: key.removesuffix("._target_") if name == "_target_" else key if name in ambiguous else name
        for key, name in last.items()
    }


def _setting(keys: Sequence[str], runs: list[Run]) -> Setting:
    first_runs: dict[tuple[str, str], Run] = {}
    for run in runs:
        first_runs.setdefault(repetition_key(run), run)
    counted = sorted(first_runs.values(), key=lambda run: (*map(_sort_key, (run.seed, run.fold)), run.name))
    repeats = tuple(run for run in runs if first_runs[repetition_key(run)] is not run)
    values = {key: runs[0].config.get(key, MISSING) for key in keys}
    short = short_keys(keys)
    texts = {key: format_value(value) for key, value in values.items() if value is not MISSING}
    name = " ".join(text if key == VARIANT else f"{short[key]}={text}" for key, text in texts.items())
    more = f" (+{len(counted) - 1})" if len(counted) > 1 else ""
    return Setting(name or f"{counted[0].name}{more}", values, tuple(counted), repeats)


def fill_defaults(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Add the schema's default for each key that a run lacks and others have; return the runs and the added keys."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    if all(len(run.config) == len(keys) for run in runs):
        return list(runs), []
    defaults = {key: value for key, value in _defaults().items() if key in keys}
    missing = [{key: defaults[key] for key in defaults if not _has(run.config, key)} for run in runs]
    added = dict.fromkeys(key for values in missing for key in values)
    return [replace(run, config={**run.config, **values}) for run, values in zip(runs, missing, strict=True)], [*added]


def _has(config: dict[str, Any], key: str) -> bool:
    """Whether the config has the key or nested keys below it."""
    return key in config or any(other.startswith(f"{key}.") for other in config)


def _defaults() -> dict[str, Any]:
    """Return the schema's defaults by dotted key, for keys whose default is a scalar or a list."""
    from afqmc.config import Config
    from afqmc.config.error_messages import schema_fields

    defaults: dict[str, Any] = {}
    for key, (item, _) in schema_fields(Config).items():
        value = item.default if item.default_factory is NO_FACTORY else item.default_factory()
        nested = {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
        defaults |= nested
    plain = {key: value.name if isinstance(value, Enum) else value for key, value in defaults.items()}
    return {key: value for key, value in plain.items() if isinstance(value, int | float | str | list | None)}
