"""Read the data of the pairs that runs were evaluated on, if the file they name is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from afqmc import config
from afqmc.data.loading import label_to_index, read_split, resolve_files, to_columns
from afqmc.results.prediction_table import in_order
from afqmc.results.predictions import Predictions
from afqmc.results.runs import Run
from afqmc.utils.errors import InputError, as_input_error, did_you_mean
from afqmc.utils.language import Message, msg

_MAX_LENGTH = 300  # characters per sentence; the table has thousands of sentences


@dataclass(frozen=True)
class PairTexts:
    """Both sentences of each of N pairs, and the values of other columns, (N,) each."""

    sentences: list[list[str]]
    columns: dict[str, list[Any]]


def read_texts(
    run: Run, split: str, predictions: Predictions, columns: Sequence[str] = ()
) -> tuple[PairTexts | None, Message | None]:
    """Return the data of all pairs, or None and the reason.

    An untrusted run directory may name any file of this machine. So nothing is downloaded, and a file is shown only if
    all its ids and labels match the predictions: the author of the directory then had the data already. Errors of
    other files are not reported, because a message might quote the file.

    Args:
        run: Names the file.
        split: Which of its splits.
        predictions: Those of the run on this split.
        columns: Other columns of the file.

    Raises:
        InputError: if the file has no such column.
    """
    count, rows = len(predictions.rows.ids), list[dict[str, Any]]()
    try:
        with as_input_error(run.name):
            dataset = config.load(run.path).dataset
            is_out_of_fold = split == "dev" and dataset.num_folds is not None  # dev is then a part of the train file
            file_split = "train" if is_out_of_fold else split
            file = resolve_files(dataset, fetch=False)[file_split]
            index = label_to_index(tuple(predictions.rows.classes))
            read = read_split(dataset, file_split, file, index, on_row=rows.append if columns else None)
            # one pair more than expected is enough to see that the file is a different one
            pairs = to_columns(file.name, list(islice(read, count + 1)), index)
    except InputError:
        return None, msg("the {split} pairs that {run} names cannot be read on this machine", split=split, run=run.name)
    order = in_order(pairs.ids) if is_out_of_fold else range(len(pairs.ids))
    ids = [pairs.ids[row] for row in order]
    labels = None if pairs.labels is None else [pairs.labels[row] for row in order]
    if ids != predictions.rows.ids or labels != predictions.answers.gold.tolist():
        return None, msg(
            "the {split} pairs that {run} names are not those it was evaluated on", split=split, run=run.name
        )
    _reject_missing(columns, rows)
    sentences = [[_shorten(pairs.sentence1[row]), _shorten(pairs.sentence2[row])] for row in order]
    return PairTexts(sentences, {column: [rows[row].get(column) for row in order] for column in columns}), None


def _reject_missing(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    known = {name for row in rows for name in row}
    for column in columns:
        if column not in known:
            raise InputError(f"--slice {column}: the data have no such column{did_you_mean(column, known)}")


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
