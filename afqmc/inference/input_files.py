"""The pairs to predict, from files, standard input or the command line, with the user's own columns."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afqmc.data.config import DatasetConfig, Format
from afqmc.data.loading import Pairs, to_columns
from afqmc.data.parsing import read_pairs
from afqmc.data.sources import DataFile
from afqmc.inference.predictor import Predictor, data_file


class Inputs:
    """Pairs of several files one after the other, or of the command line.

    Attributes:
        rows: The columns of each pair, as they were read.
        files: The file of each pair.
    """

    def __init__(self, files: Sequence[Path], pairs: Sequence[tuple[str, str]] = ()) -> None:
        self.named, self.typed = files, pairs
        self.rows: list[dict[str, Any]] = []
        self.files: list[str] = []

    def read(self, run: Predictor) -> Pairs:
        """All pairs, read as the run reads its own.

        Raises:
            InputError: naming the file and line.
        """
        if self.typed:
            return self._read_typed()
        parts = []
        for path in self.named:
            part = run.read_file(data_file(path, run.config.dataset, "FILE"), labelled=False, keep=self.rows.append)
            parts.append(part)
            self.files += [part.file] * len(part)
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _read_typed(self) -> Pairs:
        lines = (json.dumps({"sentence1": one, "sentence2": two}) + "\n" for one, two in self.typed)
        content = "".join(lines).encode()
        file = DataFile("--pair", lambda: io.BytesIO(content), Format.jsonl)
        rows = list(read_pairs(file, DatasetConfig(), labelled=False, on_row=self.rows.append))
        return to_columns(file.name, rows, {})


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(
        f"{len(parts)} files",
        [identity for part in parts for identity in part.ids],
        [text for part in parts for text in part.sentence1],
        [text for part in parts for text in part.sentence2],
        None,
    )
