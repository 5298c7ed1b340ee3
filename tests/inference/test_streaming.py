"""Large files: the same output as in memory, constant memory, and resuming after a kill."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet
import pytest

from afqmc.inference import streaming
from afqmc.inference.ensemble_scores import EnsembleScores
from afqmc.inference.input_files import Inputs
from afqmc.inference.output_files import render
from afqmc.inference.predictor import Predictor
from afqmc.inference.run_files import open_data_file
from afqmc.inference.streaming import LargeFile
from afqmc.utils.errors import InputError

ROWS = [
    {"sentence1": f"怎么还款{index}", "sentence2": "额度" * (index % 5 + 1), "note": 'a "b"\nc', "number": index}
    | ({"late": index} if index > 30 else {})
    for index in range(40)
]


@pytest.fixture(scope="module")
def predictor(small_run):
    return Predictor.load(small_run.path, "cpu", labelled=False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def job(predictor, run, file, out, chunk=7):
    return LargeFile(predictor, run, open_data_file(file, predictor.config.dataset), out, chunk)


def in_memory(predictor, file, out):
    inputs = Inputs([file])
    pairs = inputs.read(predictor)
    logits = predictor.evaluate(pairs).logits
    return render(EnsembleScores(pairs, predictor.labels, logits, predictor.decision), inputs, out, clue=False)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_equals_the_output_in_memory(predictor, small_run, file, tmp_path, suffix):
    """Bytes are equal but for the last digits of probabilities, which depend on the batch."""
    out = tmp_path / f"out{suffix}"
    assert job(predictor, small_run, file, out).predict() == (len(ROWS), [])
    expected = tmp_path / f"expected{suffix}"
    expected.write_bytes(in_memory(predictor, file, expected))
    if suffix == ".parquet":
        tables = [pyarrow.parquet.read_table(path).to_pylist() for path in (out, expected)]
    elif suffix == ".jsonl":
        tables = [[json.loads(line) for line in path.read_text().splitlines()] for path in (out, expected)]
    else:
        texts = [io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="") for path in (out, expected)]
        tables = [[*csv.DictReader(text)] for text in texts]
    probabilities = [np.array([float(row.pop("probability")) for row in table]) for table in tables]
    assert tables[0] == tables[1]
    assert np.abs(probabilities[0] - probabilities[1]).max() < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, out.name, expected.name])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_long_pairs_and_formulas(predictor, small_run, file, tmp_path, suffix):
    """Pairs that were cut are marked in all chunks, and warnings are given as for small files."""
    rows = [*ROWS, {"sentence1": "还款" * 100, "sentence2": "=1+1", "number": 40}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / f"out{suffix}"
    count, warnings = job(predictor, small_run, file, out).predict()
    cut = "1 of 41 pairs have more than 128 tokens and were cut; the column truncated marks them"
    assert (count, warnings[-1]) == (41, cut)
    assert [warning[:7] for warning in warnings[:-1]] == (["1 cells"] if suffix == ".csv" else [])
    if suffix == ".parquet":
        marks = pyarrow.parquet.read_table(out)["truncated"].to_pylist()
    elif suffix == ".jsonl":
        marks = [json.loads(line)["truncated"] for line in out.read_text().splitlines()]
    else:
        table = csv.DictReader(io.StringIO(out.read_bytes().decode("utf-8-sig"), newline=""))
        marks = [row["truncated"] == "true" for row in table]
    assert marks == [*[False] * 40, True]


SHORT, LONG = ({"sentence1": "还款" * times, "sentence2": "额度"} for times in (1, 100))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("rows", "start"),
    [
        ([*[SHORT | {"truncated": "no"}] * 40, LONG], 35),
        ([SHORT | {"truncated": "no"}, *[SHORT] * 39, LONG], 35),  # the first chunk has the column, the last the cut
        ([LONG, *[SHORT] * 39, SHORT | {"truncated": "no"}], 0),
        ([LONG, *[SHORT] * 39, SHORT | {"truncated": None}], 0),
    ],
)
def test_own_column_truncated(predictor, small_run, file, tmp_path, suffix, rows, start):
    """A column of the user with the name of the marks is refused before logits are computed, wherever it begins."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / f"out{suffix}"
    with pytest.raises(InputError, match=rf"has a column 'truncated' already.* \(rows are counted from row {start} "):
        job(predictor, small_run, file, out).predict()
    assert not (tmp_path / f"{out.name}.partial" / "rows.f32").exists()
    job(predictor, small_run, file, tmp_path / "out.jsonl").predict()  # has no columns of the input
    assert sum(json.loads(line)["truncated"] for line in (tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_resumes_where_it_stopped(predictor, small_run, file, tmp_path, monkeypatch, caplog):
    """Chunks that were computed before an interruption are not computed again, and the output is the same."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    job(predictor, small_run, file, whole).predict()
    computed, evaluate = [], Predictor.evaluate

    def stops(self, pairs, bar=None):
        if len(computed) == 3:
            raise Stopped
        computed.append(pairs.ids[0])
        return evaluate(self, pairs, bar)

    monkeypatch.setattr(Predictor, "evaluate", stops)
    with pytest.raises(Stopped):
        job(predictor, small_run, file, out).predict()
    logits = tmp_path / "out.jsonl.partial" / "rows.f32"
    logits.write_bytes(logits.read_bytes() + b"abc")  # a kill may leave part of a chunk
    assert not out.exists()
    rest = []
    monkeypatch.setattr(
        Predictor, "evaluate", lambda *arguments: rest.append(arguments[1].ids[0]) or evaluate(*arguments)
    )
    job(predictor, small_run, file, out).predict()
    assert (computed, rest) == ([0, 7, 14], [21, 28, 35])
    assert "out.jsonl.partial: resumes after 21 of 40 pairs" in caplog.text
    assert out.read_bytes() == whole.read_bytes()


def test_changed_input_starts_again(predictor, small_run, file, tmp_path, monkeypatch, caplog):
    """Logits of another file are never used."""
    out = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    monkeypatch.setattr(LargeFile, "_write", lambda *_: (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        job(predictor, small_run, file, out).predict()
    monkeypatch.undo()
    first = (partial / "rows.f32").read_bytes()
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(reversed(lines)))
    job(predictor, small_run, file, out).predict()
    assert "out.jsonl.partial: belongs to another file, other weights or other settings" in caplog.text
    assert not partial.exists()
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [*range(40)]
    expected = predictor.decide(np.frombuffer(first, np.float32).reshape(-1, 3)[:, :2]).probabilities[:, 1]
    written = [json.loads(line)["probability"] for line in out.read_text().splitlines()]
    assert np.abs(np.array(written)[::-1] - expected).max() < 1e-6


def test_invalid_rows_are_found_before_the_prediction(predictor, small_run, file, tmp_path):
    """The message names the row; no output and no temporary file is left."""
    with file.open("a") as stream:
        stream.write('{"sentence1": "a"}\n')
    with pytest.raises(InputError, match=r"pairs.jsonl:41: .*sentence2"):
        job(predictor, small_run, file, tmp_path / "out.jsonl").predict()
    assert not (tmp_path / "out.jsonl").exists()


def test_command_streams_large_files(small_run, tmp_path):
    """The command chooses the way by the size of the file and the format."""
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b" " * streaming.LARGE_FILE)
    assert streaming.is_large(path, tmp_path / "out.csv")
    assert not streaming.is_large(path, tmp_path / "out.xlsx")
    path.write_bytes(b"")
    assert not streaming.is_large(path, tmp_path / "out.csv")
