"""Read and validate the predictions that a run stored, and combine those of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import logits_of, mean_as_logits, probabilities_of
from afqmc.evaluation.predictions import CALIBRATED, DECIDED, LOGITS
from afqmc.results.resampled_metrics import Array, LabelledPredictions
from afqmc.results.runs import Run
from afqmc.results.untrusted_files import read_jsonl, read_list
from afqmc.utils.errors import InputError
from afqmc.utils.language import message_of, msg


@dataclass(frozen=True)
class PredictionTable:
    """The content of predictions/<split>.jsonl.

    Attributes:
        ids: The ids of the N pairs, in the order of the split.
        classes: The C label names in class order.
        logits: (N, C), float64; log-probabilities if the run stored only probabilities.
        predicted: The most probable classes, (N,).
        gold: True classes, (N,), or None if the split has no labels.
        is_exact: Whether the run stored logits; some metrics cannot be recomputed from rounded probabilities.
        groups: The group of each pair, (N,), from 0: pairs that share a sentence. None if each pair is its own, or the
            run did not record them.
        calibrated: Calibrated probabilities (N, C), or None if the run has no decision.
        decided: Classes predicted with its threshold (N,), or None.
    """

    ids: list[int | str]
    classes: list[str]
    logits: Array
    predicted: Array
    gold: Array | None
    is_exact: bool = True
    groups: Array | None = None
    calibrated: Array | None = None
    decided: Array | None = None

    @cached_property
    def probabilities(self) -> Array:
        """(N, C), float64."""
        return probabilities_of(self.logits)

    @classmethod
    def of(cls, run: Run, split: str) -> PredictionTable:
        """Read the predictions of a run.

        Raises:
            InputError: If they cannot be read or are invalid; names the file.
        """
        file = f"predictions/{split}.jsonl"
        try:
            rows = read_jsonl(run.path / file, file)
            if len(rows) < 2:
                raise ValueError(msg("contains fewer than 2 rows"))
            return cls._parsed(rows, _classes(run.path, run.config.get("dataset.labels"), rows))
        except InputError:
            raise
        except (KeyError, TypeError) as error:
            raise InputError(msg("{file}: {why}", file=file, why=_required_keys())) from error
        except ValueError as error:
            raise InputError(msg("{file}: {why}", file=file, why=message_of(error))) from error

    @classmethod
    def _parsed(cls, rows: list[dict[str, Any]], classes: list[str]) -> PredictionTable:
        predictions = [row["prediction"] for row in rows]
        if missing := predictions.count(None):
            raise ValueError(msg("{count} pairs have no prediction: their logits are not finite", count=missing))
        is_exact = LOGITS in rows[0]
        logits = (_logits if is_exact else _logits_of_probabilities)(rows, classes)
        class_index = {label: index for index, label in enumerate(classes)}
        predicted = np.array([class_index[label] for label in predictions])
        columns = set().union(*rows)
        gold = np.array([class_index[row["label"]] for row in rows]) if "label" in columns else None
        if not (logits[np.arange(len(rows)), predicted] >= logits.max(axis=1)).all():
            raise ValueError(
                msg("contains predictions that are not the most probable of {labels}", labels=", ".join(classes))
            )
        calibrated, decided = None, None
        if CALIBRATED in rows[0]:
            calibrated = _probabilities(rows, CALIBRATED, classes)
            decided = np.array([class_index[row[DECIDED]] for row in rows])
        ids = [row["id"] for row in rows]
        groups = _groups(rows) if "group" in columns else None
        return cls(ids, classes, logits, predicted, gold, is_exact, groups, calibrated, decided)

    def answers(self) -> LabelledPredictions:
        """Return the predictions of a labelled split in the form that metrics take.

        Raises:
            InputError: If the split has no labels.
        """
        if self.gold is None:
            raise InputError(_required_keys())
        return LabelledPredictions(self.gold, self.predicted, self.logits, self.calibrated, self.decided)

    def differs_from(self, other: PredictionTable) -> str | None:
        """Describe the first difference in ids, classes or labels, or return None if there is none."""
        if len(self.ids) != len(other.ids):
            return msg("{other} pairs against {these}", other=len(other.ids), these=len(self.ids))
        if self.classes != other.classes:
            return _other_labels(other, self)
        ids = zip(self.ids, other.ids, strict=True) if self.ids != other.ids else ()
        for line, (this_id, other_id) in enumerate(ids, 1):
            if this_id != other_id:
                return msg("id {other!r} against {this!r} in line {line}", other=other_id, this=this_id, line=line)
        if self.gold is None or other.gold is None:
            return None if self.gold is other.gold else msg("one has labels, the other none")
        changed = np.flatnonzero(self.gold != other.gold)
        if len(changed):
            return msg(
                "label {other!r} against {this!r} in line {line}",
                other=other._label(changed[0]),
                this=self._label(changed[0]),
                line=int(changed[0]) + 1,
            )
        return None

    def _label(self, row: Any) -> str:
        assert self.gold is not None
        return self.classes[int(self.gold[row])]


def _groups(rows: list[dict[str, Any]]) -> Array:
    """Number the groups; rows without ``group`` are groups of one."""
    names = [("group", row["group"]) if "group" in row else ("pair", index) for index, row in enumerate(rows)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _logits(rows: list[dict[str, Any]], classes: list[str]) -> Array:
    logits = np.array([row[LOGITS] for row in rows], dtype=np.float64)
    _check_shape(logits, classes)
    if not (np.abs(logits) <= np.finfo(np.float32).max).all():
        raise ValueError(msg("contains logits that are not finite"))
    return logits


def _logits_of_probabilities(rows: list[dict[str, Any]], classes: list[str]) -> Array:
    """Return log-probabilities, for a run that stored only probabilities."""
    return logits_of(_probabilities(rows, "probability", classes))


def _probabilities(rows: list[dict[str, Any]], column: str, classes: list[str]) -> Array:
    """Return a column of probabilities as (N, C)."""
    stored = np.array([row[column] for row in rows], dtype=np.float64)
    probabilities = np.stack([1 - stored, stored], axis=1) if stored.ndim == 1 else stored
    _check_shape(probabilities, classes)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(msg("contains probabilities outside [0, 1]"))
    return probabilities


def _check_shape(values: Array, classes: list[str]) -> None:
    if values.ndim != 2 or values.shape[1] != len(classes) or len(classes) < 2:
        names = ", ".join(classes)
        raise ValueError(msg("expected values of {count} classes: {labels}", count=len(classes), labels=names))


def _required_keys() -> str:
    return msg("rows need id, probability, prediction and label")


def _other_labels(a: PredictionTable, b: PredictionTable) -> str:
    return msg("labels {one} against {other}", one=", ".join(a.classes), other=", ".join(b.classes))


def in_order(ids: Sequence[object]) -> list[int]:
    """Return the indices that sort the ids, integers before strings.

    Raises:
        InputError: If an id is neither.
    """
    if not all(type(pair_id) in (int, str) for pair_id in ids):
        raise InputError(msg("cannot sort ids that are neither integers nor strings"))
    return sorted(range(len(ids)), key=lambda index: (isinstance(ids[index], str), ids[index]))


def concat_folds(folds: Sequence[PredictionTable]) -> PredictionTable:
    """Return the rows of all folds, sorted by id.

    Raises:
        InputError: If a pair is in two folds, or the folds have different labels.
    """
    first = folds[0]
    ids = [pair_id for fold in folds for pair_id in fold.ids]
    order = in_order(ids)
    for previous, index in pairwise(order):
        if ids[previous] == ids[index]:
            raise InputError(msg("the pair with id {one!r} is in two of the folds", one=ids[index]))
    for fold in folds:
        if fold.classes != first.classes:
            raise InputError(_other_labels(fold, first))
    gold = None if first.gold is None else np.concatenate([fold.answers().gold for fold in folds])[order]
    logits = np.concatenate([fold.logits for fold in folds])[order]
    predicted = np.concatenate([fold.predicted for fold in folds])[order]
    groups = _concat_groups(folds)
    return PredictionTable(
        [ids[index] for index in order],
        first.classes,
        logits,
        predicted,
        gold,
        groups=None if groups is None else groups[order],
        calibrated=_concat([fold.calibrated for fold in folds], order),
        decided=_concat([fold.decided for fold in folds], order),
    )


def _concat(columns: Sequence[Array | None], order: list[int]) -> Array | None:
    """Return the rows of all columns in an order; None if a column is missing."""
    known = [column for column in columns if column is not None]
    return np.concatenate(known)[order] if len(known) == len(columns) else None


def _concat_groups(folds: Sequence[PredictionTable]) -> Array | None:
    """Return the groups of all folds, which have no pairs in common."""
    if all(fold.groups is None for fold in folds):
        return None
    parts: list[Array] = []
    start = 0
    for fold in folds:
        groups = np.arange(len(fold.ids)) if fold.groups is None else fold.groups
        parts.append(groups + start)
        start += int(groups.max()) + 1
    return np.concatenate(parts)


def mean_of(tables: Sequence[PredictionTable]) -> PredictionTable:
    """Return the same pairs with the mean of the tables' probabilities.

    No threshold of a single table fits the mean. Therefore ``decided`` is the class with the highest mean calibrated
    probability.

    Raises:
        InputError: If a table has other pairs or labels than the first.
    """
    first = tables[0]
    for table in tables[1:]:
        if difference := first.differs_from(table):
            raise InputError(difference)
    logits = mean_as_logits([table.logits for table in tables])
    known = [table.calibrated for table in tables if table.calibrated is not None]
    calibrated = np.mean(known, axis=0) if len(known) == len(tables) else None
    decided = None if calibrated is None else calibrated.argmax(axis=1)
    return replace(first, logits=logits, predicted=logits.argmax(axis=1), calibrated=calibrated, decided=decided)


def _classes(path: Path, configured: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Return the label names in class order: as saved with the weights, else as configured, else sorted."""
    saved = path / "checkpoints" / "best" / "labels.json"
    labels = read_list(saved) if saved.exists() else configured
    if labels is None:
        labels = sorted({row[key] for row in rows for key in ("label", "prediction") if key in row})
    if not isinstance(labels, list) or len(set(map(str, labels))) != len(labels):
        raise ValueError(msg("the label names of this run are invalid"))
    return [str(label) for label in labels]
