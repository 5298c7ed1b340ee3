"""Read the pairs to predict from files, standard input or the command line, and keep all of their columns."""

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
from afqmc.inference.predictor import Predictor


class Inputs:
    """The pairs of one or more files, one file after the other, or of the command line.

    Attributes:
        paths: The files; empty if the pairs are given on the command line.
        typed: Pairs from the command line.
        rows: All columns of each pair, filled by ``read``.
        files: The name of the file of each pair, filled by ``read``.
    """

    def __init__(self, paths: Sequence[Path], typed: Sequence[tuple[str, str]] = ()) -> None:
        self.paths, self.typed = paths, typed
        self.rows: list[dict[str, Any]] = []
        self.files: list[str] = []

    def read(self, predictor: Predictor) -> Pairs:
        """Read all pairs with the column names of the run.

        Raises:
            InputError: with the file and line of what cannot be read.
        """
        if self.typed:
            return self._read_typed()
        contents = []
        for path in self.paths:
            pairs = predictor.read_pairs(path, labelled=False, key="FILE", on_row=self.rows.append)
            contents.append(pairs)
            self.files += [pairs.file] * len(pairs)
        return contents[0] if len(contents) == 1 else _concatenate(contents)

    def _read_typed(self) -> Pairs:
        rows = ({"sentence1": sentence1, "sentence2": sentence2} for sentence1, sentence2 in self.typed)
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = DataFile("--pair", lambda: io.BytesIO(content), Format.jsonl)
        pairs = list(read_pairs(file, DatasetConfig(), labelled=False, on_row=self.rows.append))
        return to_columns(file.name, pairs, {})


def _concatenate(contents: Sequence[Pairs]) -> Pairs:
    return Pairs(
        f"{len(contents)} files",
        [identity for pairs in contents for identity in pairs.ids],
        [text for pairs in contents for text in pairs.sentence1],
        [text for pairs in contents for text in pairs.sentence2],
        None,
    )
