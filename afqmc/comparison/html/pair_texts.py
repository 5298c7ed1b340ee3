"""Read the sentences of the pairs that runs were evaluated on, if the data they name are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from afqmc import config
from afqmc.data.loading import label_to_index, read_split, resolve_files, to_columns
from afqmc.results.prediction_table import in_order
from afqmc.results.predictions import Predictions
from afqmc.results.resampled_metrics import Array
from afqmc.results.runs import Run
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.language import Message, msg

_MAX_LENGTH = 300  # characters per sentence; the table has thousands of sentences


def read_sentences(
    run: Run, split: str, predictions: Predictions, rows: Sequence[int] | Array
) -> tuple[list[list[str]] | None, Message | None]:
    """Return both sentences of each row, or None and the reason.

    An untrusted run directory may name any file of this machine. So nothing is downloaded, and a file is shown only if
    all its ids and labels match the predictions: the author of the directory then had the data already. Errors of
    other files are not reported, because a message might quote the file.
    """
    try:
        with as_input_error(run.name):
            dataset = config.load(run.path).dataset
            is_out_of_fold = split == "dev" and dataset.num_folds is not None  # dev is then a part of the train file
            file_split = "train" if is_out_of_fold else split
            file = resolve_files(dataset, fetch=False)[file_split]
            index = label_to_index(tuple(predictions.rows.classes))
            # one pair more than expected is enough to see that the file is a different one
            file_rows = list(islice(read_split(dataset, file_split, file, index), len(predictions.rows.ids) + 1))
            pairs = to_columns(file.name, file_rows, index)
    except InputError:
        return None, msg("the {split} pairs that {run} names cannot be read on this machine", split=split, run=run.name)
    order = in_order(pairs.ids) if is_out_of_fold else range(len(pairs.ids))
    ids, labels = [pairs.ids[row] for row in order], [(pairs.labels or ())[row] for row in order]
    if ids != predictions.rows.ids or labels != predictions.answers.gold.tolist():
        return None, msg(
            "the {split} pairs that {run} names are not those it was evaluated on", split=split, run=run.name
        )
    return [[_shorten(pairs.sentence1[order[row]]), _shorten(pairs.sentence2[order[row]])] for row in rows], None


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
