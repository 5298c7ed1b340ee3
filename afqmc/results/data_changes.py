"""Detect changes in the dev data since a run was evaluated, by its stored predictions and digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afqmc.data.loading import Pairs, sorted_digest, split_digest
from afqmc.results.untrusted_files import read_jsonl, read_object
from afqmc.utils.errors import InputError


def dev_changes(run_dir: Path, dev: Pairs, labels: Sequence[str]) -> dict[str, Any] | None:
    """Return the differences between the dev pairs on disk and those of the run, or None if there are none.

    Runs of earlier versions stored no digest. For them only changed ids and labels are detected, not sentences.
    """
    digest, sorted_before = (_stored_digest(run_dir, key) for key in ("sha256", "sorted_sha256"))
    if digest == split_digest(dev, labels):
        return None
    gold = [labels[label] for label in dev.labels or ()]
    now = list(zip(map(repr, dev.ids), gold, strict=True))
    before = _stored_labels(run_dir)
    if before is None:
        return None if digest is None else {"text": "its digest differs from the run's"}
    if sorted_before is not None and sorted_before == sorted_digest(dev, labels):
        changes: dict[str, Any] = {"reordered": True}  # ids may be row numbers, which do not move with their pairs
    else:
        changes = _differences(before, now)
    if not changes and digest is not None:
        changes = {"sentences": True}
    if not changes:
        return None
    return {"pairs_before": len(before), "pairs": len(now), **changes, "text": _summarize(before, now, changes)}


def _stored_digest(run_dir: Path, key: str) -> str | None:
    try:
        return str(read_object(run_dir / "summary.json")["data"]["dev"][key])
    except (InputError, KeyError, TypeError):
        return None


def _stored_labels(run_dir: Path) -> list[tuple[str, str]] | None:
    """Return id and label of each dev pair of the run, or None if they cannot be read."""
    try:
        rows = read_jsonl(run_dir / "predictions" / "dev.jsonl")
        return [(repr(row["id"]), str(row["label"])) for row in rows]
    except (InputError, KeyError):
        return None


def _differences(before: list[tuple[str, str]], now: list[tuple[str, str]]) -> dict[str, Any]:
    """Compare by id, or by position if ids are not unique."""
    old, new = dict(before), dict(now)
    if len(old) < len(before) or len(new) < len(now):
        old, new = ({f"row {index}": repr(row) for index, row in enumerate(rows)} for rows in (before, now))
    relabelled = [pair_id for pair_id in new if pair_id in old and old[pair_id] != new[pair_id]]
    changes: dict[str, Any] = {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "relabelled": len(relabelled),
        "reordered": [pair_id for pair_id in old if pair_id in new] != [pair_id for pair_id in new if pair_id in old],
    }
    changes |= {"first_relabelled": relabelled[0]} if relabelled else {}
    return {name: value for name, value in changes.items() if value}


def _summarize(before: Sequence[Any], now: Sequence[Any], changes: dict[str, Any]) -> str:
    phrases = [f"{len(before)} pairs then, {len(now)} now"] if len(before) != len(now) else []
    phrases += [f"{changes[name]} {name}" for name in ("added", "removed") if name in changes]
    if "relabelled" in changes:
        phrases.append(f"{changes['relabelled']} relabelled (first: id {changes['first_relabelled']})")
    phrases += ["different order"] if "reordered" in changes else []
    phrases += ["different sentences"] if "sentences" in changes else []
    return ", ".join(phrases)
