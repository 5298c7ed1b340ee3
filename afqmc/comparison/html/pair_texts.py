"""The sentences of the pairs that runs were scored on, where the data they name lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from afqmc import config
from afqmc.data.loading import label_to_index, read_split, resolve_files, to_columns
from afqmc.results.prediction_table import in_order
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import Array
from afqmc.results.runs import Run
from afqmc.results.translatable import Message, msg
from afqmc.utils.errors import InputError, as_input_error

_LONG = 300  # characters of a sentence; the table holds thousands


def sentences(
    run: Run, split: str, predictions: Predictions, rows: Sequence[int] | Array
) -> tuple[list[list[str]] | None, Message | None]:
    """Both sentences of each row, or None and why there are none.

    A run directory may name any file of this machine. Nothing is fetched, and a file is shown only if its ids and
    labels are those of the predictions, all of them: whoever made the directory knew the data already. What is wrong
    with another file is not told, a message might quote it.
    """
    try:
        with as_input_error(run.name):
            dataset = config.load(run.path).dataset
            together = split == "dev" and dataset.folds is not None  # each fold held out its part of train's file
            of_file = "train" if together else split
            file = resolve_files(dataset, fetch=False)[of_file]
            index = label_to_index(tuple(predictions.rows.classes))
            rows_of_file = list(islice(read_split(dataset, of_file, file, index), len(predictions.rows.ids) + 1))
            pairs = to_columns(file.name, rows_of_file, index)
    except InputError:
        return None, msg("the {split} pairs that {run} names cannot be read on this machine", split=split, run=run.name)
    place = in_order(pairs.ids) if together else range(len(pairs.ids))
    ids, labels = [pairs.ids[row] for row in place], [(pairs.labels or ())[row] for row in place]
    if ids != predictions.rows.ids or labels != predictions.answers.gold.tolist():
        return None, msg("the {split} pairs that {run} names are not those it was scored on", split=split, run=run.name)
    both = ((pairs.sentence1[place[row]], pairs.sentence2[place[row]]) for row in rows)
    return [[_cut(one), _cut(other)] for one, other in both], None


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
