"""Test predict: input and output formats, the user's columns, standard streams, and protection of input files."""

import csv
import datetime
import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PYTHON, command, environment, train

from afqmc import compare, evaluate, predict
from afqmc.cli import run_command
from afqmc.data.loading import Pairs
from afqmc.inference.ensemble_scores import EnsembleScores
from afqmc.inference.input_files import Inputs
from afqmc.inference.output_files import render
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]
ROWS = [
    {"sentence1": "怎么还款", "sentence2": '花呗"怎么"还', "note": "=1+1", "label": "1"},
    {"sentence1": "-1 是什么", "sentence2": "a,b\n第二行", "note": "", "label": "0"},
    {"sentence1": "借呗额度", "sentence2": "提前还款", "note": "7", "label": "0"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on custom files."""
    home = tmp_path_factory.mktemp("predict")
    pairs = [{**row, "sentence1": f"{row['sentence1']}{n}", "label": str(n % 2)} for n in range(12) for row in ROWS]
    (home / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    own = ("train_file", "dev_file", "test_file")
    files = [f"dataset.{name}={home}/train.jsonl" for name in own]
    return train(home / "run", "dataset=files", *files, "dataset.max_length=32", "trainer.max_steps=2")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call a command in an empty directory; returns the code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [entry.__name__, *map(str, arguments)])
        code = run_command(entry.main)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def pairs(tmp_path):
    """The three rows as CSV."""
    path = tmp_path / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(ROWS[0]))
        table.writeheader()
        table.writerows(ROWS)
    return path


def read_back(path):
    """Rows of a file that predict wrote, as dicts."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    if path.suffix == ".xlsx":
        sheet = pytest.importorskip("openpyxl").load_workbook(path).active
        header, *rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
        assert not any(cell.data_type == "f" for row in sheet.iter_rows() for cell in row)
        return [dict(zip(header, row, strict=True)) for row in rows]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "xlsx"])
def test_table_formats(suffix, run, call, pairs, tmp_path):
    """A table has the user's columns unchanged, then the prediction."""
    if suffix != "csv":
        pytest.importorskip({"parquet": "pyarrow", "xlsx": "openpyxl"}[suffix])
    assert call(predict, run.path, pairs, "-o", "a.jsonl")[0] == 0
    code, message, warning = call(predict, run.path, pairs, "-o", f"a.{suffix}")
    assert (code, message) == (0, f"a.{suffix}: 3 pairs\n")
    assert ("2 cells begin with =" in warning) is (suffix == "csv")
    expected = [json.loads(line) for line in Path("a.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = read_back(tmp_path / f"a.{suffix}")
    assert list(rows[0]) == [*ROWS[0], "probability", "prediction"]
    for original, prediction, row in zip(ROWS, expected, rows, strict=True):
        assert {name: row[name] or "" for name in original} == original
        assert float(row["probability"]) == prediction["probability"]
        assert row["prediction"] == prediction["prediction"]
    if suffix == "csv":
        assert Path("a.csv").read_bytes().startswith(b"\xef\xbb\xbfsentence1")  # as Excel needs it


def test_tsv(run, call, pairs):
    """TSV is written without quotes, and rejects cells with tabs or line breaks."""
    code, _, error = call(predict, run.path, pairs, "-o", "a.tsv")
    assert (code, "row 2: 'sentence2' contains a tab or a line break" in error) == (2, True)
    assert not Path("a.tsv").exists()
    pairs.write_text('sentence1,sentence2\n"a ""b""",c\n', encoding="utf-8")
    assert call(predict, run.path, pairs, "-o", "a.tsv")[0] == 0
    assert Path("a.tsv").read_text(encoding="utf-8").splitlines()[1].startswith('a "b"\tc\t0.')


@pytest.mark.parametrize(("cell", "message"), [("a" * 32_768, "is longer than an Excel cell"), ("\1", "control char")])
def test_cell_invalid_in_excel(cell, message, tmp_path, monkeypatch):
    """The half-written workbook is closed. Otherwise its writer prints a traceback when it is collected."""
    pytest.importorskip("openpyxl")
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    inputs = Inputs([tmp_path / "x.jsonl"])
    inputs.rows = [{"sentence1": "a"}, {"sentence1": cell}]
    scored = EnsembleScores(Pairs("x", [0, 1], ["a"] * 2, ["b"] * 2, None), ("0", "1"), np.zeros((2, 2)))
    with pytest.raises(InputError, match=rf"row 2: 'sentence1' .*{message}"):
        render(scored, inputs, Path("out.xlsx"), clue=False)
    gc.collect()
    assert not complaints


def test_three_classes(tmp_path):
    """With three classes there is one probability column per class."""
    rows = [{"sentence1": "a", "sentence2": "b"}]
    inputs = Inputs([tmp_path / "x.jsonl"])
    inputs.rows = rows
    scored = EnsembleScores(Pairs("x", [0], ["a"], ["b"], None), ("甲", "乙", "丙"), np.log([[0.25, 0.5, 0.25]]))
    table = render(scored, inputs, Path("out.csv"), clue=False).decode("utf-8-sig")
    assert table.splitlines() == [
        "sentence1,sentence2,probability_甲,probability_乙,probability_丙,prediction", "a,b,0.25,0.5,0.25,乙"
    ]  # fmt: skip


@pytest.mark.parametrize("taken", ["probability", "prediction"])
def test_existing_column(taken, run, call, pairs):
    """A column of the user is never overwritten."""
    pairs.write_text(f"sentence1,sentence2,{taken}\na,b,mine\n", encoding="utf-8")
    code, _, error = call(predict, run.path, pairs, "-o", "out.csv")
    assert (code, f"has a column '{taken}' already" in error) == (2, True)
    assert call(predict, run.path, pairs, "-o", "out.jsonl")[0] == 0


def test_several_files(run, call, pairs, tmp_path):
    """With several files, each row names its file."""
    shutil.copy(pairs, tmp_path / "more.csv")
    assert call(predict, run.path, "pairs.csv", "more.csv", "-o", "out.jsonl")[0] == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["file"], row["id"]) for row in rows] == [(f, n) for f in ("pairs.csv", "more.csv") for n in range(3)]
    assert [row["probability"] for row in rows[:3]] == pytest.approx([row["probability"] for row in rows[3:]])
    assert call(predict, run.path, "pairs.csv", "more.csv", "-o", "out.csv")[0] == 0
    assert [row["file"] for row in read_back(tmp_path / "out.csv")] == ["pairs.csv"] * 3 + ["more.csv"] * 3


def test_standard_streams(run, pairs, tmp_path):
    """Standard output has the rows and nothing else."""
    done = subprocess.run(
        [PYTHON, "-m", "afqmc.predict", str(run.path), "-", "-o", "-", "dataset.format=csv"],
        input=pairs.read_bytes(), capture_output=True, cwd=tmp_path, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [0, 1, 2]
    count, decision = done.stderr.decode().splitlines()[-2:]
    assert count == "3 pairs"
    assert re.fullmatch(
        r"decision for accuracy on \d+ dev pairs: threshold 0\.\d{4}, temperature [\d.]+, bias -?[\d.]+", decision
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.csv"]


def test_pair_option(run, call):
    """--pair predicts one pair."""
    code, out, _ = call(predict, run.path, "--pair", "怎么还款", "如何还花呗")
    assert code == 0
    assert json.loads(out).keys() == {"sentence1", "sentence2", "probability", "prediction"}
    assert "--pair:1: 'sentence2' is empty" in call(predict, run.path, "--pair", "a", " ")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "pairs.csv"], "-o: is missing"),
        (["RUN", "-o", "x.csv"], "give either a FILE of pairs"),
        (["RUN", "pairs.csv", "--pair", "a", "b"], "give either a FILE of pairs"),
        (["RUN", "pairs.csv", "-o", "x.doc"], ".doc is not an output format; allowed: .jsonl, .json, .csv"),
        (
            ["RUN", "pairs.csv", "-o", "x.csv", "--clue"],
            ".csv is not an output format; allowed with --clue: .json, .jsonl",
        ),
        (["RUN", "pairs.csv", "pairs.csv", "-o", "x.zip", "--clue"], "needs exactly one FILE"),
        (["RUN", "pairs.csv", "-o", "none/x.csv"], "there is no directory none"),
        (["RUN", "pairs.csv", "-o", "x.csv", "lr=1"], "lr=1: not a key about how a file is read; allowed: dataset."),
        (["RUN", "pairs.csv", "-o", "x.csv", "dataset.id_feild=x"], "did you mean 'dataset.id_field'?"),
        (["RUN", "pairs.csv", "-o", "x.csv", "dataset.format=doc"], "dataset.format=doc: must be one of auto, jsonl"),
        (["RUN", "pairs.csv", "-o", "x.csv", "dataset.columns=3"], "dataset.columns"),
        (["RUN", "pairs.csv", "-o", "x.csv", "+dataset.format=csv"], "write dataset.format=value, with one value"),
        (["pairs.csv", "pairs.csv", "-o", "x.csv"], "pairs.csv: not a run directory (it has no config.yaml)"),
    ],
)
def test_invalid_command_line(arguments, message, run, call, pairs):
    """An invalid command line is rejected, and writes nothing."""
    code, out, error = call(predict, *(run.path if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "")
    assert message in error
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs.csv"]


def test_column_overrides(run, call, tmp_path):
    """dataset.key=value reads columns of other names."""
    own = "".join(f"{row['sentence1']}\t{row['label']}\t{row['note'] or 'x'}\n" for row in ROWS)
    (tmp_path / "other.txt").write_text(own, encoding="utf-8")
    names = ("dataset.columns=[q1,same,q2]", "dataset.sentence1_field=q1", "dataset.sentence2_field=q2")
    assert call(predict, run.path, "other.txt", "-o", "out.csv", *names)[0] == 0
    assert [row["q1"] for row in read_back(tmp_path / "out.csv")] == [row["sentence1"] for row in ROWS]
    scoring = (evaluate, run.path, "--data", "other.txt", "--json", *names)
    code, out, error = call(*scoring, "dataset.label_field=same")
    assert (code, json.loads(out)["pairs"]) == (0, 3), error
    assert call(*scoring)[0] == 2  # without the label's column
    assert "lr=1: not a key about how a file is read" in call(evaluate, run.path, "lr=1")[2]


# an output that is an input


def linked(kind, target, tmp_path):
    """Another name of a file."""
    if kind == "relative":
        return Path(os.path.relpath(target, tmp_path))
    link = tmp_path / "link.jsonl"
    (link.symlink_to if kind == "symbolic link" else link.hardlink_to)(target)
    return link


@pytest.mark.parametrize("kind", ["relative", "symbolic link", "hard link"])
@pytest.mark.parametrize("target", ["pairs.csv", "../train.jsonl", "config.yaml", "checkpoints/best/labels.json"])
def test_input_is_not_overwritten(kind, target, run, call, pairs, tmp_path):
    """An input is not overwritten under any of its names."""
    target = pairs if target == pairs.name else (run.path / target).resolve()
    before = target.read_bytes()
    out = linked(kind, target, tmp_path)
    code, _, error = call(predict, run.path, pairs, "-o", out)
    if kind == "hard link" and "checkpoints" in str(target):
        assert target.read_bytes() == before  # the other name is replaced, the file itself stays
        return
    assert code == 2
    assert f"-o {out}: " in error
    assert "the input" in error or "not an output format" in error
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_stdin_file_is_not_overwritten(name, run, pairs):
    """A file that is read as standard input is not overwritten."""
    before = pairs.read_bytes()
    with pairs.open("rb") as stream:
        done = subprocess.run(
            [PYTHON, "-m", "afqmc.predict", run.path, name, "-o", "pairs.csv", "dataset.format=csv"],
            stdin=stream, capture_output=True, text=True, cwd=pairs.parent, check=False, env=environment(),
        )  # fmt: skip
    assert (done.returncode, f"-o pairs.csv: is the same file as the input {name}" in done.stderr) == (2, True)
    assert pairs.read_bytes() == before


def test_run_files_are_not_overwritten(run, call, pairs):
    """Neither predict nor compare overwrites the files of a run."""
    code, _, error = call(predict, run.path, pairs, "-o", run.path / "predictions/dev.jsonl")
    assert (code, "is a file of the input" in error) == (2, True)
    before = (run.path.parent / "train.jsonl").read_bytes()
    for target in (run.path / "summary.json", run.path.parent / "train.jsonl"):
        code, _, error = call(compare, run.path, "--json", target)
        assert (code, f"--json {target}: is the same file as the input" in error) == (2, True)
    assert (run.path.parent / "train.jsonl").read_bytes() == before
    assert run.read_summary()["monitor"]


def test_allowed_outputs(run, call, pairs):
    """A pipe and a new file in the run directory are allowed."""
    assert call(predict, run.path, pairs, "-o", run.path / "mine.csv")[0] == 0
    assert call(predict, run.path, pairs, "-o", run.path / "mine.csv")[0] == 0
    done = command("predict", str(run.path), str(pairs), "-o", "/dev/stdout", cwd=pairs.parent)
    assert len(done.stdout.splitlines()) == 3


# a full disk


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from afqmc.utils.files import write_bytes

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
write_bytes(Path(sys.argv[1]), b"x" * 1000)
"""


def test_full_disk_keeps_old_file(tmp_path):
    """On a full disk the old file stays, and the message has the path."""
    (tmp_path / "file").write_bytes(b"old")
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "file"], capture_output=True, text=True, cwd=ROOT
    )  # fmt: skip
    assert f"File too large: '{tmp_path}/file'" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_predict_on_full_disk(run, call, pairs):
    """predict reports the file that cannot be written."""
    code, _, error = call(predict, run.path, pairs, "-o", "/dev/full")
    assert (code, error) == (2, "-o /dev/full: cannot be written: No space left on device\n")


def test_nan_is_rejected(tmp_path):
    """Weights that give NaN write no predictions."""
    scored = EnsembleScores(
        Pairs("x", [0, 1], ["a"] * 2, ["b"] * 2, None), ("0", "1"), np.array([[0.5, 0.5], [np.nan] * 2])
    )
    with pytest.raises(InputError, match="NaN for 1 of 2 pairs"):
        scored.reject_nan()


def test_parquet_to_csv(run, call, tmp_path):
    """The columns of a Parquet file are kept."""
    table = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "x.parquet")
    assert call(predict, run.path, "x.parquet", "-o", "out.csv")[0] == 0
    written = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert [row["note"] for row in written] == [str(row["note"] or "") for row in ROWS]


def typed_table():
    """A Parquet table with a column of every kind that text does not hold."""
    pyarrow = pytest.importorskip("pyarrow")
    day = datetime.date(2026, 5, 1)
    stamps = pyarrow.array([1_700_000_000_000_000_001, None], pyarrow.timestamp("ns", "UTC"))
    return pyarrow.table(
        {
            "id": ["007", "7"], "sentence1": ["a", "b"], "sentence2": ["c", "d"],
            "label": pyarrow.array([1.0, 0.0], pyarrow.float32()), "int": pyarrow.array([1, None], pyarrow.int8()),
            "float": [1.0, 1e300], "inf": [float("inf"), float("nan")], "decimal": [Decimal("2.00"), Decimal("0.50")],
            "empty": ["", None], "day": [day, None], "days": [[day], None], "stamps": stamps,
            "kinds": pyarrow.array(["x", None]).dictionary_encode(), "blob": [b"\xff", b""], "sum": [b"=1", b"x"],
            "nothing": pyarrow.array([None, None], pyarrow.int32()), "": [{"bytes": b"x", "day": day}, None],
        }
    )  # fmt: skip


def test_parquet_to_parquet(run, call, tmp_path):
    """From Parquet to Parquet, columns keep their types and values."""
    parquet, table = pytest.importorskip("pyarrow.parquet"), typed_table()
    parquet.write_table(table, tmp_path / "x.parquet")
    assert call(predict, run.path, "x.parquet", "-o", "out.parquet")[0] == 0
    written = parquet.read_table(tmp_path / "out.parquet").select(table.column_names)
    assert written.schema.types == parquet.read_table(tmp_path / "x.parquet").schema.types
    assert str(written.to_pydict()) == str(table.to_pydict())  # NaN is not equal to itself
    assert call(predict, run.path, "x.parquet", "-o", "out.jsonl")[0] == 0


def test_unwritable_column(run, call, tmp_path):
    """A column that the format cannot store is reported; without it the others are written."""
    parquet, table = pytest.importorskip("pyarrow.parquet"), typed_table()
    parquet.write_table(table, tmp_path / "x.parquet")
    code, _, error = call(predict, run.path, "x.parquet", "-o", "out.csv")
    assert (code, error.startswith("-o out.csv: row 1: 'blob' cannot be written as text (")) == (2, True)
    parquet.write_table(table.drop_columns(["blob", "stamps"]), tmp_path / "x.parquet")
    code, _, warning = call(predict, run.path, "x.parquet", "-o", "out.csv")
    assert (code, "1 cells begin with =" in warning) == (0, True)
    first, second = read_back(tmp_path / "out.csv")
    assert [first[name] for name in ("id", "label", "float", "decimal", "empty", "day", "days")] == [
        "007", "1.0", "1.0", "2.00", "", "2026-05-01", '["2026-05-01"]'
    ]  # fmt: skip
    assert (second["float"], first[""]) == ("1e+300", '{"bytes": "x", "day": "2026-05-01"}')
    assert call(predict, run.path, "x.parquet", "-o", "out.xlsx")[0] == 0
    assert [row["decimal"] for row in read_back(tmp_path / "out.xlsx")] == [2, 0.5]


def test_workbook_input(run, call, tmp_path):
    """Values of a workbook are kept, even in a column without a name."""
    openpyxl = pytest.importorskip("openpyxl")
    stamp = datetime.datetime(2026, 5, 1, 12, 30)
    rows = [[None, "sentence1", "sentence2", "when", "number"], [0, "a", "b", stamp, 1], [1, "c", "#N/A?", None, 0.5]]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    for suffix in ("csv", "xlsx", "parquet"):
        code, _, error = call(predict, run.path, "x.xlsx", "-o", f"out.{suffix}")
        assert code == 0, error
    assert [row[""] for row in read_back(tmp_path / "out.csv")] == ["0", "1"]
    first, second = read_back(tmp_path / "out.parquet")
    assert (first[""], first["when"], first["number"], second["number"]) == (0, stamp, 1.0, 0.5)
    assert read_back(tmp_path / "out.xlsx")[0]["when"] == stamp


def test_encoding_note(run, call, tmp_path, caplog):
    """An encoding other than UTF-8 is reported."""
    text = "sentence1,sentence2\n" + "怎么还款都不行,我的额度为什么不能用了\n现在可以提前还吗,花呗是不是要开通\n" * 3
    (tmp_path / "gb.csv").write_bytes(text.encode("gb18030"))
    assert call(predict, run.path, "gb.csv", "-o", "out.csv")[0] == 0
    assert "gb.csv: read as GB18030" in caplog.messages


@pytest.fixture
def decided_run(run, tmp_path):
    """A copy of a run whose decision predicts the second label only above a probability of 0.99."""
    path = tmp_path / "decided"
    shutil.copytree(run.path, path)
    content = {"metric": "f1", "pairs": 64, "temperature": 1.0, "bias": 0.0, "threshold": 0.99}
    (path / "checkpoints/best/decision.json").write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_decision_is_used(decided_run, call, pairs, tmp_path, suffix):
    """Predictions are those of the threshold, which standard error names; without one, the likeliest label."""
    out = tmp_path / f"out{suffix}"
    note = "decision for f1 on 64 dev pairs: threshold 0.9900, temperature 1.0000, bias 0.0000"
    code, _, error = call(predict, decided_run, pairs, "-o", out)
    assert code == 0, error
    assert note in error
    with_threshold = read_back(out)
    assert {row["prediction"] for row in with_threshold} == {"0"}
    (decided_run / "checkpoints/best/decision.json").unlink()
    code, _, error = call(predict, decided_run, pairs, "-o", out)
    assert (code, "decision for" in error) == (0, False)
    likeliest = read_back(out)
    for row, other in zip(likeliest, with_threshold, strict=True):
        assert float(row["probability"]) == pytest.approx(float(other["probability"]))
        assert row["prediction"] == ("1" if float(row["probability"]) > 0.5 else "0")


def test_calibrated_probability(decided_run, call):
    """The probability is sigmoid(margin / temperature + bias), and the Python API returns the same."""
    content = {"metric": "f1", "pairs": 64, "temperature": 0.5, "bias": -0.25, "threshold": 0.2}
    (decided_run / "checkpoints/best/decision.json").write_text(json.dumps(content), encoding="utf-8")
    predictor = Predictor.load(decided_run)
    [row] = predictor.predict([("怎么还款", "如何还花呗")])
    margin = row["logits"][1] - row["logits"][0]
    assert row["probability"] == pytest.approx(1 / (1 + np.exp(-(margin / 0.5 - 0.25))))
    assert list(row) == ["id", "logits", "probability", "prediction"]
    assert row["prediction"] == "1"
    code, out, _ = call(predict, decided_run, "--pair", "怎么还款", "如何还花呗")
    assert (code, json.loads(out)["probability"]) == (0, pytest.approx(row["probability"]))


def test_mean_is_decided_as_one_model(run, call, pairs, tmp_path):
    """With the same dev pairs, the decision is fitted on the mean. A mean of equal runs is decided as the run."""
    shutil.copytree(run.path, tmp_path / "copy")
    code, out, error = call(predict, tmp_path / "copy", run.path, pairs, "-o", "-")
    assert code == 0, error
    assert "the mean on dev, cross-fitted: accuracy" in error
    expected = call(predict, run.path, pairs, "-o", "-")[1]
    for row, other in zip(*[map(json.loads, text.splitlines()) for text in (out, expected)], strict=True):
        assert row["prediction"] == other["prediction"]
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_mean_without_decision(run, call, pairs, tmp_path):
    """Runs with other dev pairs: the mean predicts the likeliest label, and standard error has the reason."""
    shutil.copytree(run.path, tmp_path / "copy")
    file = tmp_path / "copy/predictions/dev.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    code, out, error = call(predict, tmp_path / "copy", run.path, pairs, "-o", "-")
    assert code == 0, error
    assert "the mean is not decided as one model: the dev pairs of" in error
    assert "the likeliest label of the mean is predicted" in error
    for row in map(json.loads, out.splitlines()):
        assert row["prediction"] == ("1" if row["probability"] > 0.5 else "0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "must be a JSON object with the keys metric, pairs, temperature, bias, threshold"),
        (
            '{"metric": "f1", "pairs": 9, "temperature": 0, "bias": 0, "threshold": 0.5}',
            "temperature: must be a number",
        ),
    ],
)
def test_invalid_decision(decided_run, call, pairs, content, message):
    """A damaged decision.json is one message."""
    (decided_run / "checkpoints/best/decision.json").write_text(content, encoding="utf-8")
    code, out, error = call(predict, decided_run, pairs, "-o", "-")
    assert (code, out) == (2, "")
    assert error.startswith(f"{decided_run}/checkpoints/best/decision.json: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def with_dev(decided_run):
    """Return a function that replaces the stored dev predictions: half of them uncertain, and half of these wrong."""

    def write(uncertain):
        rows, margins = [], [uncertain, 50] * 200
        for index, margin in enumerate(margins):
            label = "0" if margin == uncertain and index % 4 == 0 else "1"
            row = {"id": index, "logits": [0.0, margin], "probability": 1.0, "prediction": "1", "label": label}
            rows.append(json.dumps(row) + "\n")
        (decided_run / "predictions/dev.jsonl").write_text("".join(rows), encoding="utf-8")
        summary = json.loads((decided_run / "summary.json").read_text(encoding="utf-8"))
        summary["best"]["dev/accuracy"] = 0.75
        (decided_run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return decided_run

    return write


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_abstain(with_dev, call, pairs, tmp_path, suffix):
    """Pairs less certain than the cut have an empty prediction, and standard error says what is promised."""
    out = tmp_path / f"out{suffix}"
    code, _, error = call(predict, with_dev(30.0), pairs, "-o", out, "--abstain", "0.05")
    assert code == 0, error
    assert "abstain: at most 5% of the predictions are wrong, with 95% confidence, for pairs from the same" in error
    assert "3 of 3 pairs get no prediction (on dev 200 of 400, with 0 errors in 200 predictions)" in error
    assert [(row["prediction"] or "", str(row["abstained"]).lower()) for row in read_back(out)] == [("", "true")] * 3
    code, _, error = call(predict, with_dev(1e-9), pairs, "-o", out, "--abstain", "0.05")
    assert "0 of 3 pairs get no prediction" in error
    for row in read_back(out):
        assert str(row["abstained"]).lower() == "false"
        assert row["prediction"] == ("1" if float(row["probability"]) > 0.5 else "0")  # the threshold is not used


def test_abstain_is_refused(with_dev, run, call, pairs):
    """A rate that is invalid or cannot be promised, and other modes, are one message before the model is loaded."""
    path = with_dev(30.0)
    for arguments, message in (
        (
            (path, pairs, "-o", "-", "--abstain", "0.001"),
            "--abstain 0.001: cannot be promised for any share of the pairs",
        ),
        ((path, pairs, "-o", "-", "--abstain", "2"), "--abstain 2: must be a number > 0 and < 1"),
        ((path, pairs, "-o", "-", "--abstain", "nan"), "--abstain nan: must be a number > 0 and < 1"),
        ((path, pairs, "-o", "x.json", "--clue", "--abstain", "0.1"), "--abstain: not with --clue"),
        ((path, run.path, pairs, "-o", "-", "--abstain", "0.1"), "--abstain: only for one run"),
    ):
        code, out, error = call(predict, *arguments)
        assert (code, out, error.count("\n")) == (2, "", 1), error
        assert message in error
    (path / "predictions/dev.jsonl").unlink()
    code, _, error = call(predict, path, pairs, "-o", "-", "--abstain", "0.1")
    assert (code, error) == (2, f"--abstain: {path}: predictions/dev.jsonl: missing\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_long_pairs(run, call, tmp_path, suffix):
    """If any pair was cut, a column marks the pairs that were, and one warning has their number."""
    rows = [*ROWS, {"sentence1": "还款" * 40, "sentence2": "额度"}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, _, error = call(predict, run.path, "long.jsonl", "-o", f"out{suffix}")
    assert code == 0
    assert error.count("1 of 4 pairs have more than 32 tokens and were cut") == 1
    marks = [str(row["truncated"]).lower() for row in read_back(tmp_path / f"out{suffix}")]
    assert marks == ["false", "false", "false", "true"]
    taken = rows[-1] | {"truncated": "1"}
    (tmp_path / "taken.jsonl").write_text(json.dumps(taken) + "\n", encoding="utf-8")
    code, _, error = call(predict, run.path, "taken.jsonl", "-o", "taken.csv")
    assert (code, "has a column 'truncated' already" in error) == (2, True)


def test_short_pairs_have_no_mark(run):
    """The Python API adds ``truncated`` only to the rows of pairs that were cut."""
    rows = Predictor.load(run.path).predict([("怎么还款", "额度"), ("还款" * 40, "额度")])
    assert [row.get("truncated") for row in rows] == [None, True]


def test_single_pair_does_not_visit_the_modules(run, monkeypatch):
    """The model is in evaluation mode once it is loaded: switching it for each call costs as much as a small model."""
    predictor = Predictor.load(run.path, "cpu")
    visited = []
    monkeypatch.setattr(torch.nn.Module, "train", lambda self, mode=True: visited.append(self) or self)
    predictor.predict([("怎么还款", "如何还花呗")])
    assert visited == []


def test_bf16_weights_change_no_bit(run):
    """With bfloat16 autocast on the CPU, linear layers keep their weights in bfloat16; logits are those of autocast."""
    predictor, plain = (Predictor.load(run.path, "cpu", precision=precision) for precision in ("bf16", "no"))
    pairs = plain.read_pairs(None, labelled=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain.evaluate(pairs).logits
    assert np.array_equal(predictor.evaluate(pairs).logits, expected)
    kinds = {
        type(module): module.weight.dtype for module in predictor.model.encoder.modules() if hasattr(module, "weight")
    }
    assert kinds[torch.nn.Linear] is torch.bfloat16
    assert kinds[torch.nn.Embedding] is torch.float32
