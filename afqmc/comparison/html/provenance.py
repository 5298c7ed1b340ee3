"""How the runs were made: config values that differ, machines and versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, canonical, format_value
from afqmc.results.untrusted_files import read_object
from afqmc.utils.errors import InputError

_MAX_LENGTH = 300  # characters of a value
_FACTS = {  # shown name: path in environment.json
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
_HASH_LENGTHS = {"code": 10, "uncommitted changes": 10}


def configs(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the runs' config values.

    Returns:
        A dict with ``shared``, the values that are equal in all runs, and ``varying``: for other keys, their ``values``
        and the index of each run's value. A missing value is None.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config)
    shared, varying = {}, {}
    for key in keys:
        indices: dict[str, int] = {}
        values: list[str | None] = []
        index_by_run = []
        for run in runs:
            value = run.config.get(key, MISSING)
            index = indices.setdefault(canonical(value), len(indices))
            if index == len(values):
                values.append(None if value is MISSING else format_value(value)[:_MAX_LENGTH])
            index_by_run.append(index)
        if len(values) > 1:
            varying[key] = {"values": values, "index_by_run": index_by_run}
        else:
            shared[key] = values[0]
    return {"shared": shared, "varying": varying}


def machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the facts in environment.json: each with its values and the number of runs, most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for fact, value in _facts(run).items():
            counts.setdefault(fact, Counter())[value] += 1
    return [{"fact": fact, "values": values.most_common()} for fact, values in counts.items()]


def _facts(run: Run) -> dict[str, str]:
    try:
        environment = read_object(run.path / "environment.json")
    except InputError:
        return {}
    packages = environment.get("packages")
    facts = {fact: _value_at(environment, path) for fact, path in _FACTS.items()}
    facts |= packages if isinstance(packages, dict) else {}
    return {
        str(fact)[:_MAX_LENGTH]: str(value)[: _HASH_LENGTHS.get(fact, _MAX_LENGTH)]
        for fact, value in facts.items()
        if value
    }


def _value_at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
