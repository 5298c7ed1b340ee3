"""How the runs were made: the settings in which any two differ, and machines and versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, canonical, format_value
from afqmc.results.untrusted_files import read_object
from afqmc.utils.errors import InputError

_LONG = 300  # characters of a value
_PLACES = {  # of environment.json, by what people call them
    "code": ("git", "commit"),
    "uncommitted changes": ("git", "diff_sha256"),
    "Python": ("python",),
    "platform": ("platform",),
    "device": ("hardware", "device"),
    "GPU": ("hardware", "gpu"),
    "CPU": ("hardware", "cpu"),
    "threads": ("hardware", "threads"),
    "precision": ("hardware", "mixed_precision"),
}
_SHORT = {"code": 10, "uncommitted changes": 10}  # of hashes


def configs(runs: Sequence[Run]) -> dict[str, Any]:
    """Every setting once where all runs share it, else its values and which of them each run has; None for no value."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    shared, varying = {}, {}
    for key in keys:
        places: dict[str, int] = {}
        values: list[str | None] = []
        of = []
        for run in runs:
            value = run.config.get(key, MISSING)
            place = places.setdefault(canonical(value), len(places))
            if place == len(values):
                values.append(None if value is MISSING else format_value(value)[:_LONG])
            of.append(place)
        if len(values) > 1:
            varying[key] = {"values": values, "of": of}
        else:
            shared[key] = values[0]
    return {"shared": shared, "varying": varying}


def machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Facts of environment.json, each with its values, the commonest first, and how many runs have them."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        for fact, value in _facts(run).items():
            counts = found.setdefault(fact, {})
            counts[value] = counts.get(value, 0) + 1
    return [
        {"fact": fact, "values": sorted(counts.items(), key=lambda item: -item[1])} for fact, counts in found.items()
    ]


def _facts(run: Run) -> dict[str, str]:
    try:
        whole = read_object(run.path / "environment.json")
    except InputError:
        return {}
    packages = whole.get("packages")
    facts = {fact: _at(whole, place) for fact, place in _PLACES.items()}
    facts |= packages if isinstance(packages, dict) else {}
    return {str(fact)[:_LONG]: str(value)[: _SHORT.get(fact, _LONG)] for fact, value in facts.items() if value}


def _at(tree: Any, place: Sequence[str]) -> Any:
    for name in place:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
