"""From scored pairs to the content of the output file: JSON lines, a table with the user's columns, or a submission."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afqmc.data.loading import Pairs
from afqmc.inference.input_files import Inputs
from afqmc.inference.output_formats import TABLES, as_json_lines
from afqmc.inference.prediction_columns import build, reject_existing_columns
from afqmc.inference.predictor import EnsembleScores, Predictor
from afqmc.utils.errors import InputError

_CLUE_NAME = "afqmc_predict.json"  # what the leaderboard looks for inside the zip


def render(found: EnsembleScores, inputs: Inputs, out: Path, clue: bool) -> bytes:
    """The content of ``out``.

    Raises:
        InputError: naming the row or column that the format cannot hold.
    """
    suffix, is_several = out.suffix.lower(), len(inputs.named) > 1
    if clue:
        content = as_json_lines(
            [
                {"id": identity, "label": found.labels[int(said.argmax())]}
                for identity, said in zip(found.pairs.ids, found.probabilities, strict=True)
            ]
        )
        return zipped(content) if suffix == ".zip" else content
    if suffix not in TABLES:
        return as_json_lines(list(_objects(found, inputs, is_several)))
    reject_existing_columns(inputs.rows, is_several, found.labels, str(out))
    files, with_types = inputs.files if is_several else (), suffix == ".parquet"
    try:
        return TABLES[suffix](build(inputs.rows, files, found.probabilities, found.labels, with_types))
    except InputError as error:
        raise InputError(f"-o {out}: {error}") from error


def check_columns(run: Predictor, inputs: Inputs, pairs: Pairs, out: Path, clue: bool) -> None:
    """Try the output without predictions: what the format cannot hold is refused before the scoring.

    Raises:
        InputError: as ``render`` does.
    """
    render(EnsembleScores(pairs, run.labels, np.zeros((len(pairs), len(run.labels)))), inputs, out, clue)


def _objects(found: EnsembleScores, inputs: Inputs, is_several: bool) -> Iterator[dict[str, Any]]:
    """The id (for --pair the sentences), the file where there are several, probability and prediction of each pair."""
    for number, said in enumerate(found.probabilities):
        row = dict(inputs.rows[number]) if inputs.typed else {"id": found.pairs.ids[number]}
        row |= {"file": inputs.files[number]} if is_several else {}
        yield row | _said(said, found.labels)


def _said(probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    probability = float(probabilities[1]) if len(labels) == 2 else [float(value) for value in probabilities]
    return {"probability": probability, "prediction": labels[int(probabilities.argmax())]}


def zipped(submission: bytes) -> bytes:
    """A zip as the leaderboard takes it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_CLUE_NAME, submission)
    return whole.getvalue()
