"""What a run wrote of each pair of a split, read with care; and rows of several runs taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.evaluation.metrics import logits_of, mean_as_logits, probabilities_of
from afqmc.evaluation.predictions import LOGITS
from afqmc.results.resampled_metrics import Array, LabelledPredictions
from afqmc.results.runs import Run
from afqmc.results.translatable import message_of, msg
from afqmc.results.untrusted_files import read_list, read_rows
from afqmc.utils.errors import InputError


@dataclass(frozen=True)
class PredictionTable:
    """predictions/<split>.jsonl.

    Attributes:
        ids: Of the N pairs, in the split's order.
        classes: The C label names in class order.
        logits: (N, C), float64; the logarithms of the probabilities where the run wrote only these.
        predicted: The likeliest classes, (N,).
        gold: True classes, (N,); None where the split has no labels.
        is_exact: Whether the run wrote its logits: rounded probabilities do not give every metric.
    """

    ids: list[int | str]
    classes: list[str]
    logits: Array
    predicted: Array
    gold: Array | None
    is_exact: bool = True

    @cached_property
    def probabilities(self) -> Array:
        """(N, C), float64."""
        return probabilities_of(self.logits)

    @classmethod
    def of(cls, run: Run, split: str) -> PredictionTable:
        """A run's.

        Raises:
            InputError: when they cannot be read or make no sense, naming the file.
        """
        file = f"predictions/{split}.jsonl"
        try:
            rows = read_rows(run.path / file, file)
            if len(rows) < 2:
                raise ValueError(msg("holds too few rows to tell anything"))
            return cls._parsed(rows, _classes(run.path, run.config.get("dataset.labels"), rows))
        except InputError:
            raise
        except (KeyError, TypeError) as error:
            raise InputError(msg("{file}: {why}", file=file, why=_needed())) from error
        except ValueError as error:
            raise InputError(msg("{file}: {why}", file=file, why=message_of(error))) from error

    @classmethod
    def _parsed(cls, rows: list[dict[str, Any]], classes: list[str]) -> PredictionTable:
        if lacking := sum(row["prediction"] is None for row in rows):
            raise ValueError(msg("{count} pairs have no prediction: their logits are not finite", count=lacking))
        is_exact = LOGITS in rows[0]
        logits = (_logits if is_exact else _logits_of_probabilities)(rows, classes)
        number = {label: place for place, label in enumerate(classes)}
        predicted = np.array([number[row["prediction"]] for row in rows])
        labelled = any("label" in row for row in rows)
        gold = np.array([number[row["label"]] for row in rows]) if labelled else None
        if not (logits[np.arange(len(rows)), predicted] >= logits.max(axis=1)).all():
            raise ValueError(msg("holds predictions that are not the likeliest of {labels}", labels=", ".join(classes)))
        return cls([row["id"] for row in rows], classes, logits, predicted, gold, is_exact)

    def answers(self) -> LabelledPredictions:
        """As metrics take them; the split must be labelled.

        Raises:
            InputError: where it is not.
        """
        if self.gold is None:
            raise InputError(_needed())
        return LabelledPredictions(self.gold, self.predicted, self.logits)

    def differs_from(self, other: PredictionTable) -> str | None:
        """Where the other's pairs are not these, in words; None where they are."""
        if len(self.ids) != len(other.ids):
            return msg("{other} pairs against {these}", other=len(other.ids), these=len(self.ids))
        if self.classes != other.classes:
            return _other_labels(other, self)
        for row, (one, two) in enumerate(zip(self.ids, other.ids, strict=True), 1):
            if one != two:
                return msg("id {other!r} against {this!r} in line {line}", other=two, this=one, line=row)
        if self.gold is None or other.gold is None:
            return None if self.gold is other.gold else msg("one has labels, the other none")
        unlike = np.flatnonzero(self.gold != other.gold)
        if len(unlike):
            return msg(
                "label {other!r} against {this!r} in line {line}",
                other=other._label(unlike[0]),
                this=self._label(unlike[0]),
                line=int(unlike[0]) + 1,
            )
        return None

    def _label(self, row: Any) -> str:
        assert self.gold is not None
        return self.classes[int(self.gold[row])]


def _logits(rows: list[dict[str, Any]], classes: list[str]) -> Array:
    logits = np.array([row[LOGITS] for row in rows], dtype=np.float64)
    _refuse_shape(logits, classes)
    if not (np.abs(logits) <= np.finfo(np.float32).max).all():
        raise ValueError(msg("holds logits that are not finite numbers"))
    return logits


def _logits_of_probabilities(rows: list[dict[str, Any]], classes: list[str]) -> Array:
    """Of a run that wrote probabilities only."""
    given = np.array([row["probability"] for row in rows], dtype=np.float64)
    probabilities = np.stack([1 - given, given], axis=1) if given.ndim == 1 else given
    _refuse_shape(probabilities, classes)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(msg("holds probabilities that are none"))
    return logits_of(probabilities)


def _refuse_shape(found: Array, classes: list[str]) -> None:
    if found.ndim != 2 or found.shape[1] != len(classes) or len(classes) < 2:
        names = ", ".join(classes)
        raise ValueError(msg("values of {count} classes were expected: {labels}", count=len(classes), labels=names))


def _needed() -> str:
    return msg("rows need id, probability, prediction and label")


def _other_labels(one: PredictionTable, other: PredictionTable) -> str:
    return msg("labels {one} against {other}", one=", ".join(one.classes), other=", ".join(other.classes))


def in_order(ids: Sequence[object]) -> list[int]:
    """Places of ids by rising id, numbers before texts.

    Raises:
        InputError: where one is neither.
    """
    if not all(type(one) in (int, str) for one in ids):
        raise InputError(msg("ids must be whole numbers or strings, to be put in order"))
    return sorted(range(len(ids)), key=lambda place: (isinstance(ids[place], str), ids[place]))


def concat_folds(parts: Sequence[PredictionTable]) -> PredictionTable:
    """The rows of all parts, which have no pair in common, ordered by id.

    Raises:
        InputError: where they have one, or other labels.
    """
    first = parts[0]
    ids = [one for part in parts for one in part.ids]
    order = in_order(ids)
    for before, place in pairwise(order):
        if ids[before] == ids[place]:
            raise InputError(msg("the pair with id {one!r} is in two of the folds", one=ids[place]))
    for part in parts:
        if part.classes != first.classes:
            raise InputError(_other_labels(part, first))
    gold = None if first.gold is None else np.concatenate([part.answers().gold for part in parts])[order]
    logits = np.concatenate([part.logits for part in parts])[order]
    predicted = np.concatenate([part.predicted for part in parts])[order]
    return PredictionTable([ids[place] for place in order], first.classes, logits, predicted, gold)


def mean_of(parts: Sequence[PredictionTable]) -> PredictionTable:
    """The same pairs with the mean of the parts' probabilities.

    Raises:
        InputError: where a part has other pairs or labels than the first.
    """
    first = parts[0]
    for part in parts[1:]:
        if unlike := first.differs_from(part):
            raise InputError(unlike)
    logits = mean_as_logits([part.logits for part in parts])
    return replace(first, logits=logits, predicted=logits.argmax(axis=1))


def _classes(path: Path, configured: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Label names in class order: as saved with the weights, else as configured, else sorted as a run would."""
    saved = path / "checkpoints" / "best" / "labels.json"
    found = read_list(saved) if saved.exists() else configured
    if found is None:
        found = sorted({row[key] for row in rows for key in ("label", "prediction") if key in row})
    if not isinstance(found, list) or len(set(map(str, found))) != len(found):
        raise ValueError(msg("the label names of this run are not known"))
    return [str(label) for label in found]
