"""Render predictions as the content of an output file: JSON lines, a table with the user's columns, or a submission."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.data.loading import Pairs
from afqmc.evaluation.abstention import Abstention
from afqmc.evaluation.decision import Decided
from afqmc.inference.ensemble_scores import EnsembleScores
from afqmc.inference.input_files import Inputs
from afqmc.inference.output_formats import TABLES, as_json_lines
from afqmc.inference.prediction_columns import build_columns, outcome, reject_existing_columns
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError

_CLUE_NAME = "afqmc_predict.json"  # the name that the leaderboard expects inside the zip


def render(scores: EnsembleScores, inputs: Inputs, out: Path, clue: bool) -> bytes:
    """Return the content of ``out``, in the format of its suffix or as a CLUE submission.

    Raises:
        InputError: with the row or column that the format cannot store.
    """
    suffix, has_several_files, decided = out.suffix.lower(), len(inputs.paths) > 1, scores.decided
    if clue:
        content = as_json_lines(
            [
                {"id": identity, "label": scores.labels[predicted]}
                for identity, predicted in zip(scores.pairs.ids, decided.predicted.tolist(), strict=True)
            ]
        )
        return zip_submission(content) if suffix == ".zip" else content
    if suffix not in TABLES:
        return as_json_lines(list(_objects(scores, inputs, has_several_files)))
    reject_existing_columns(inputs.rows, has_several_files, scores.labels, str(out), decided)
    files, with_types = inputs.files if has_several_files else (), suffix == ".parquet"
    try:
        return TABLES[suffix](build_columns(inputs.rows, files, decided, scores.labels, with_types))
    except InputError as error:
        raise InputError(f"-o {out}: {error}") from error


def check_output_columns(
    predictor: Predictor, inputs: Inputs, pairs: Pairs, out: Path, clue: bool, abstention: Abstention | None = None
) -> None:
    """Render the output with zeros for logits, so that what the format cannot store is found before the prediction.

    Raises:
        InputError: as ``render`` does.
    """
    logits = np.zeros((len(pairs), len(predictor.labels)))
    has_column = any("truncated" in row for row in inputs.rows)  # a column of this name is added if any pair is cut
    truncated = cut_pairs(predictor, pairs) if has_column else None
    scores = EnsembleScores(pairs, predictor.labels, logits, abstention=abstention, truncated=truncated)
    render(scores, inputs, out, clue)


def cut_pairs(predictor: Predictor, pairs: Pairs) -> np.ndarray | None:
    """Return whether each pair is cut to the maximum length, (N,); None if no pair is."""
    marks = predictor.pair_tokenizer.truncated(pairs, predictor.pair_tokenizer.encode(pairs))
    return marks if marks.any() else None


def _objects(scores: EnsembleScores, inputs: Inputs, has_several_files: bool) -> Iterator[dict[str, Any]]:
    """Yield per pair its id (for --pair its sentences), its file if there are several, probability and prediction."""
    decided = scores.decided
    for index in range(len(scores.pairs)):
        row = dict(inputs.rows[index]) if inputs.typed else {"id": scores.pairs.ids[index]}
        row |= {"file": inputs.files[index]} if has_several_files else {}
        yield row | _prediction(decided, index, scores.labels)


def _prediction(decided: Decided, index: int, labels: Sequence[str]) -> dict[str, Any]:
    probabilities = decided.probabilities[index]
    probability = float(probabilities[1]) if len(labels) == 2 else [float(value) for value in probabilities]
    return {"probability": probability} | outcome(decided, index, labels)


def zip_submission(submission: bytes) -> bytes:
    """Return the zip file that the CLUE leaderboard accepts."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_CLUE_NAME, submission)
    return content.getvalue()
