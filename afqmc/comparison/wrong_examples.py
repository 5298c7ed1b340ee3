"""The dev pairs that a run got wrong, for the page of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afqmc.comparison.html.pair_texts import read_texts
from afqmc.results.predictions import Predictions
from afqmc.results.runs import read_run
from afqmc.utils.errors import InputError
from afqmc.utils.language import chinese, message_of, msg

_MAX_EXAMPLES = 50


def wrong_dev_pairs(run_dir: Path) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """Return the most confident errors, or no examples and the reason in English and Chinese.

    The probability of an example is that of the second label if there are two, else that of the predicted label. The
    rules of ``read_texts`` apply to an untrusted run: a file is shown only if it matches the predictions.
    """
    try:
        run = read_run(run_dir, run_dir.name)
        if not run.is_complete:
            raise InputError(msg("the run is not complete"))
        predictions = Predictions.of(run, run.monitor or "dev/accuracy")
    except InputError as error:
        return [], (message_of(error), chinese(message_of(error)))
    table, gold = predictions.rows, predictions.answers.gold
    # those of the run's decision, if it has one
    predicted = table.predicted if table.decided is None else table.decided
    probabilities = table.probabilities if table.calibrated is None else table.calibrated
    confidence = probabilities[np.arange(len(gold)), predicted]
    wrong = np.flatnonzero(predicted != gold)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MAX_EXAMPLES]
    texts, why = read_texts(run, "dev", predictions)
    if texts is None:
        return [], (str(why), chinese(why or ""))
    column = np.ones_like(predicted) if len(table.classes) == 2 else predicted
    return [
        {
            "pair": texts.sentences[row],
            "label": table.classes[gold[row]],
            "prediction": table.classes[predicted[row]],
            "probability": float(probabilities[row, column[row]]),
        }
        for row in wrong.tolist()
    ], None
