"""What changed in the dev data on disk since a run was scored on them, by its predictions and its digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afqmc.data.loading import Pairs, sorted_digest, split_digest
from afqmc.results.untrusted_files import read_object, read_rows
from afqmc.utils.errors import InputError


def dev_changes(run_dir: Path, dev: Pairs, labels: Sequence[str]) -> dict[str, Any] | None:
    """The differences between the dev pairs and those of the run; None where there are none.

    A run of an earlier version has no digest: changed sentences are then not noticed, only ids and labels.
    """
    digest, sorted_before = (_recorded(run_dir, key) for key in ("sha256", "sorted_sha256"))
    if digest == split_digest(dev, labels):
        return None
    gold = [labels[label] for label in dev.labels or ()]
    now = list(zip(map(repr, dev.ids), gold, strict=True))
    before = _scored(run_dir)
    if before is None:
        return None if digest is None else {"text": "its digest is not that of the run"}
    if sorted_before is not None and sorted_before == sorted_digest(dev, labels):
        found: dict[str, Any] = {"reordered": True}  # ids may be row numbers: they do not move with their pairs
    else:
        found = _differences(before, now)
    if not found and digest is not None:
        found = {"sentences": True}
    return (
        {"pairs_before": len(before), "pairs": len(now), **found, "text": _in_words(before, now, found)}
        if found
        else None
    )


def _recorded(run_dir: Path, key: str) -> str | None:
    """A digest of the run's dev pairs; None where the run has none."""
    try:
        return str(read_object(run_dir / "summary.json")["data"]["dev"][key])
    except (InputError, KeyError, TypeError):
        return None


def _scored(run_dir: Path) -> list[tuple[str, str]] | None:
    """Id and label of each pair that the run was scored on; None where they cannot be read."""
    try:
        rows = read_rows(run_dir / "predictions" / "dev.jsonl")
        return [(repr(row["id"]), str(row["label"])) for row in rows]
    except (InputError, KeyError):
        return None


def _differences(before: list[tuple[str, str]], now: list[tuple[str, str]]) -> dict[str, Any]:
    """Ids added and removed, labels that differ, another order; ids that are not unique are compared by position."""
    old, new = dict(before), dict(now)
    if len(old) < len(before) or len(new) < len(now):
        old, new = ({f"row {place}": repr(row) for place, row in enumerate(rows)} for rows in (before, now))
    relabelled = [identity for identity in new if identity in old and old[identity] != new[identity]]
    found: dict[str, Any] = {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "relabelled": len(relabelled),
        "reordered": [one for one in old if one in new] != [one for one in new if one in old],
    }
    found |= {"first_relabelled": relabelled[0]} if relabelled else {}
    return {name: value for name, value in found.items() if value}


def _in_words(before: Sequence[Any], now: Sequence[Any], found: dict[str, Any]) -> str:
    told = [f"{len(before)} pairs then, {len(now)} now"] if len(before) != len(now) else []
    told += [f"{found[name]} {name}" for name in ("added", "removed") if name in found]
    if "relabelled" in found:
        told.append(f"{found['relabelled']} with another label (first: id {found['first_relabelled']})")
    told += ["another order"] if "reordered" in found else []
    told += ["other sentences"] if "sentences" in found else []
    return ", ".join(told)
