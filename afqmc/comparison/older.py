"""Runs from before a key existed: what they did is taken to be its default, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from afqmc.comparison.runs import Run

_PLAIN = (int, float, str, type(None))


def filled(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
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
    from afqmc.config.messages import leaves

    found = {key: item.default for key, (item, _) in leaves(Config).items()}
    plain = {key: value.name if isinstance(value, Enum) else value for key, value in found.items()}
    return {key: value for key, value in plain.items() if isinstance(value, _PLAIN)}
