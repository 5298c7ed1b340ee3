"""Predict a large file in constant memory, and resume after an interruption.

The file is read three times. The first pass checks all rows and the output's format (one more looks for pairs that will
be cut, if the input has a column of the name that marks them). The second one computes logits in
chunks, and appends them to ``OUT.partial/rows.f32``: that is the state from which the same command resumes. The third
one writes the rows with their predictions to a temporary file, which is then renamed to OUT.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from afqmc.data.loading import Pairs, reject_empty, to_columns
from afqmc.data.parsing import Pair, read_pairs
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.inference.ensemble_scores import EnsembleScores, truncation_warning
from afqmc.inference.input_files import Inputs
from afqmc.inference.output_files import cut_pairs, render
from afqmc.inference.prediction_columns import count_formulas, formula_warning
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError, first_line
from afqmc.utils.file_lock import locked
from afqmc.utils.files import read_json_or_empty, write_json
from afqmc.utils.safe_files import sha256

log = logging.getLogger(__name__)

LARGE_FILE = 4 << 20  # bytes: smaller files are predicted in memory
STREAMED = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_CHUNK = 8192  # pairs
_JOB, _LOGITS = "job.json", "rows.f32"  # rows of C logits, and 1 if the pair was cut, else 0


@dataclass(frozen=True)
class LargeFile:
    """A file to predict in chunks, with the predictor and the output.

    Attributes:
        predictor: The model.
        run: Its run directory.
        file: The pairs.
        out: The output; its suffix is one of ``STREAMED``.
        chunk: Pairs per chunk.
        report: Counts of the last pass.
    """

    predictor: Predictor
    run: RunDir
    file: DataFile
    out: Path
    chunk: int = _CHUNK
    report: ReadReport = field(default_factory=ReadReport)

    def predict(self) -> tuple[int, list[str]]:
        """Predict all pairs, or those that an interrupted call with the same input left.

        Returns:
            The number of pairs, and warnings: on cells that look like formulas, and on pairs that were cut.

        Raises:
            InputError: with the row that cannot be read or written, or if the weights give NaN. Another process that
                writes the same output is an error too.
        """
        partial = self.out.with_name(f"{self.out.name}.partial")
        with locked(partial, "prediction"):
            count, columns, schema, formulas = self._check()
            job = self._job(count)
            if read_json_or_empty(partial / _JOB) != job:
                if (partial / _JOB).exists():
                    log.warning(
                        "%s: belongs to another file, other weights or other settings; its logits are removed and "
                        "computed again",
                        partial,
                    )
                (partial / _LOGITS).unlink(missing_ok=True)
                write_json(partial / _JOB, job)
            self._compute(partial / _LOGITS, count)
            cut = self._write(partial / _LOGITS, columns, schema)
            shutil.rmtree(partial)
        warnings = [formula_warning(formulas)] if formulas else []
        max_length = self.predictor.pair_tokenizer.max_length
        return count, [*warnings, *([truncation_warning(cut, count, max_length)] if cut else [])]

    def _chunks(self) -> Iterator[tuple[Pairs, list[dict[str, Any]]]]:
        """Yield the pairs of each chunk, with all columns of their rows."""
        rows: list[dict[str, Any]] = []
        report = ReadReport(self.file.name)
        pairs = read_pairs(self.file, self.predictor.config.dataset, labelled=False, report=report, on_row=rows.append)
        while chunk := list[Pair](islice(pairs, self.chunk)):
            own, rest = rows[: len(chunk)], rows[len(chunk) :]
            yield to_columns(self.file.name, chunk, {}), own
            rows[:] = rest
        reject_empty(report, report.rows)

    @property
    def _width(self) -> int:
        """The numbers per row of the file of logits."""
        return len(self.predictor.labels) + 1

    @property
    def _is_parquet(self) -> bool:
        return self.out.suffix.lower() == ".parquet"

    def _check(self) -> tuple[int, list[str], Any, int]:
        """Read and render all rows with zeros for logits.

        Returns:
            Their number, all columns, Parquet's schema, and the number of cells that look like formulas.
        """
        columns: dict[str, None] = {}
        count, schema, formulas = 0, None, 0
        with CountBar(0, f"{self.file.name} (1/3)") as bar:
            for pairs, rows in self._chunks():
                columns |= dict.fromkeys(column for row in rows for column in row)
                zeros = np.zeros((len(pairs), len(self.predictor.labels)), np.float32)
                content = self._render(pairs, rows, zeros, count)
                schema = _joined_schema(schema, content) if self._is_parquet else None
                formulas += count_formulas(rows, self.out.suffix.lower())
                count += len(pairs)
                bar.add(len(pairs))
        if "truncated" in columns:
            self._reject_own_marks(columns)
        return count, [*columns], schema, formulas

    def _reject_own_marks(self, columns: dict[str, None]) -> None:
        """Check that the output can have the column ``truncated``, which is added to all rows if any pair is cut.

        Raises:
            InputError: if a pair is cut, and the user has a column of that name anywhere in the file.
        """
        start = 0
        for pairs, rows in self._chunks():
            if (cut := cut_pairs(self.predictor, pairs)) is not None:
                zeros = np.zeros((len(pairs), len(self.predictor.labels)), np.float32)
                self._render(pairs, [columns | rows[0], *rows[1:]], zeros, start, cut)
                return
            start += len(pairs)

    def _job(self, count: int) -> dict[str, Any]:
        """Return everything that the logits depend on."""
        digest = hashlib.sha256()
        with self.file.open() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        dataset = self.predictor.config.dataset
        fields = {name: repr(value) for name, value in sorted(vars(dataset).items())}
        return {
            "pairs": count,
            "chunk": self.chunk,
            "file_sha256": digest.hexdigest(),
            "weights_sha256": sha256(self.run.best / "model.safetensors"),
            "engine": f"{self.predictor.engine.name} {self.predictor.engine.directory}",
            "precision": str(self.predictor.accelerator.mixed_precision),
            "dataset": fields,
        }

    def _compute(self, path: Path, count: int) -> None:
        """Append the rows of the remaining chunks, each flushed to disk."""
        size, orders = 4 * self._width, 1 + self.predictor.swaps
        done = path.stat().st_size // size // self.chunk * self.chunk if path.exists() else 0
        with path.open("r+b" if path.exists() else "w+b") as stream, CountBar(count * orders, self.file.name) as bar:
            if path.stat().st_size // size >= count:
                return
            if done:
                log.warning("%s: resumes after %d of %d pairs", path.parent, done, count)
            stream.truncate(size * done)
            stream.seek(0, os.SEEK_END)
            bar.add(done * orders)
            start = 0
            for pairs, _ in self._chunks():
                if start >= done:
                    evaluation = self.predictor.evaluate(pairs, bar)
                    logits = evaluation.logits
                    assert evaluation.truncated is not None
                    if not np.isfinite(logits).all():
                        missing = int((~np.isfinite(logits)).any(axis=1).sum())
                        raise InputError(f"the weights give NaN for {missing} of {count} pairs; nothing is written")
                    stream.write(np.column_stack([logits, evaluation.truncated]).astype(np.float32).tobytes())
                    stream.flush()
                    os.fsync(stream.fileno())
                start += len(pairs)

    def _write(self, path: Path, columns: list[str], schema: Any) -> int:
        """Write the output to a temporary file, and rename it; return the number of pairs that were cut."""
        computed = np.memmap(path, np.float32, "r").reshape(-1, self._width)
        logits, truncated = computed[:, :-1], computed[:, -1]
        count = int(truncated.sum(dtype=np.int64))
        temporary = self.out.with_name(f".{self.out.name}.new")
        temporary.unlink(missing_ok=True)  # it might be a link to another file
        try:
            with temporary.open("xb") as stream, CountBar(len(logits), f"{self.out.name} (3/3)") as bar:
                writer = _ParquetParts(stream, schema) if self._is_parquet else _TextParts(stream, self.out)
                with closing(writer):
                    start = 0
                    for pairs, rows in self._chunks():
                        rows[0] = dict.fromkeys(columns) | rows[0]  # all chunks have all columns, in the same order
                        part = slice(start, start + len(pairs))
                        marks = truncated[part].astype(bool) if count else None
                        content = self._render(pairs, rows, logits[part], start, marks)
                        writer.add(content, is_first=start == 0)
                        start += len(pairs)
                        bar.add(len(pairs))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(os.path.realpath(self.out))
            return count
        except OSError as error:
            raise InputError(f"-o {self.out}: cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _render(
        self,
        pairs: Pairs,
        rows: list[dict[str, Any]],
        logits: np.ndarray,
        start: int,
        truncated: np.ndarray | None = None,
    ) -> bytes:
        inputs = Inputs([Path(self.file.name)])
        inputs.rows = rows
        try:
            scores = EnsembleScores(pairs, self.predictor.labels, logits, self.predictor.decision, truncated=truncated)
            return render(scores, inputs, self.out, clue=False)
        except InputError as error:
            raise InputError(f"{error} (rows are counted from row {start} of the file)") from error


class _TextParts:
    """Joins rendered chunks of text: the header line of a table is written once."""

    def __init__(self, stream: IO[bytes], out: Path) -> None:
        self.stream, self.suffix = stream, out.suffix.lower()

    def add(self, content: bytes, is_first: bool) -> None:
        """Append a chunk."""
        if not is_first and self.suffix == ".tsv":
            content = content.partition(b"\n")[2]
        elif not is_first and self.suffix == ".csv":
            text = io.StringIO(content.decode("utf-8-sig"), newline="")
            next(csv.reader(iter(text.readline, "")))
            content = text.read().encode()
        self.stream.write(content)

    def close(self) -> None:
        """Do nothing."""


class _ParquetParts:
    """Joins rendered chunks of Parquet as row groups.

    Args:
        stream: Of the output.
        schema: Of all chunks together, since a column may have no value in some of them.
    """

    def __init__(self, stream: IO[bytes], schema: Any) -> None:
        self.stream, self.schema = stream, schema
        self.writer: Any = None

    def add(self, content: bytes, is_first: bool) -> None:
        """Append a chunk."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(io.BytesIO(content))
        if is_first:
            known = {field.name: field for field in (*table.schema, *self.schema)}  # the latter one is preferred
            self.schema = pyarrow.schema([known[name] for name in table.column_names])
            self.writer = pyarrow.parquet.ParquetWriter(self.stream, self.schema)
        self.writer.write_table(table.cast(self.schema))

    def close(self) -> None:
        """Write the end of the file."""
        if self.writer is not None:
            self.writer.close()


def _joined_schema(schema: Any, content: bytes) -> Any:
    """Return the schema of a rendered Parquet chunk together with that of the chunks before it.

    Raises:
        InputError: with the column whose types differ.
    """
    import pyarrow.parquet

    own = pyarrow.parquet.read_schema(io.BytesIO(content))
    try:
        return own if schema is None else pyarrow.unify_schemas([schema, own], promote_options="permissive")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise InputError(f"a column has values of several types ({first_line(error)}); write .csv or .jsonl") from error


def is_large(path: Path, out: Path) -> bool:
    """Return whether a file is predicted in chunks."""
    return out.suffix.lower() in STREAMED and path.is_file() and path.stat().st_size >= LARGE_FILE
