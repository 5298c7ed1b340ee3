"""CSV and TSV: header lines, delimiters, quotation marks, and very long cells."""

import csv
import json
import re
import zipfile

import pytest

from afqmc.config import compose
from afqmc.config.schema import check_config
from afqmc.data import compression as content
from afqmc.data.config import DatasetConfig, OnBadRow, Quoting
from afqmc.data.loading import load_dataset, resolve_files
from afqmc.data.parsing import read_pairs
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError

NAMES = ["sentence1", "sentence2", "label"]
PAIRS = [(f"a{n}", f"b{n}", str(n % 2)) for n in range(6)]


def written(path, rows):
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a file of the given name and content as triples."""

    def read(name, text, on_error=None, **settings):
        path, config = tmp_path / name, DatasetConfig(**settings)
        path.write_text(text, encoding="utf-8", newline="")
        pairs = read_pairs(DataFile.on_disk(path, config), config, labelled=True, on_error=on_error)
        return [(pair.sentence1, pair.sentence2, pair.label) for pair in pairs]

    return read


@pytest.mark.parametrize(
    "header",
    [
        "sentence1\tsentence2\tlabel",
        "Sentence1\t SENTENCE2 \tLabel",
        "label\tsentence2\tsentence1",
        "question1\tquestion2\tlabel",
        "text_a\ttext_b\tgold",
        "\ufeffq1\tq2\tsame",
        '"q1"\tq2\tsame',
        "甲\t乙\tlabel",
    ],
)
def test_header_line_with_columns(read, header):
    """With dataset.columns, a header line is rejected."""
    settings = {
        "columns": ["q1", "q2", "same"],
        "sentence1_field": "q1",
        "sentence2_field": "q2",
        "label_field": "same",
    }
    with pytest.raises(InputError, match=r"x.tsv:1: is a header line \(.*omit dataset.columns"):
        read("x.tsv", f"{header}\na\tb\t1\n", **settings)


@pytest.mark.parametrize("first", ["label\tb\t1", "花呗\tsentence1\t0", "title\tb\tyes", "标签\t句子\t1"])
def test_pair_with_column_name(read, first):
    """A first row with a single column name is a pair."""
    assert len(read("x.tsv", f"{first}\na\tb\t1\n", columns=NAMES)) == 2


HEADERS = [("句子1", "句子2", "标签"), ("s_one", "s_two", "is_dup"), ("甲", "乙", "gold")]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("labelled", [True, False, None])
@pytest.mark.parametrize("on_bad_row", list(OnBadRow))
def test_header_line_by_label(tmp_path, header, labelled, on_bad_row):
    """A first row whose label alone is unknown is a header line."""
    config = DatasetConfig(columns=NAMES, on_bad_row=on_bad_row)
    file = DataFile.on_disk(written(tmp_path / "x.csv", [header, *PAIRS]), config)
    with pytest.raises(InputError, match=rf"x.csv:1: seems to be a header line: its label '{header[2]}' is unknown"):
        list(read_pairs(file, config, labelled=labelled, index={"0": 0, "1": 1}))


@pytest.mark.parametrize(
    ("first", "rest"), [("7", PAIRS), ("", PAIRS), ("-1", PAIRS), ("x", [("a", "b", "y"), *PAIRS]), ("1", PAIRS)]
)
def test_first_row_is_a_pair(tmp_path, first, rest):
    """Other first rows of a file to predict are pairs."""
    config = DatasetConfig(columns=NAMES)
    file = DataFile.on_disk(written(tmp_path / "x.csv", [("c", "d", first), *rest]), config)
    assert len(list(read_pairs(file, config, labelled=False, index={"0": 0, "1": 1}))) == len(rest) + 1


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("streaming", [False, True])
def test_header_line_in_train(tmp_path, header, streaming):
    """A word that is the label of the first training row only is a header line."""
    train, dev = written(tmp_path / "x.csv", [header, *PAIRS]), written(tmp_path / "dev.csv", PAIRS)
    settings = {"train_file": str(train), "dev_file": str(dev), "columns": NAMES, "streaming": streaming}
    with pytest.raises(InputError, match="x.csv:1: seems to be a header line: no other row has its label"):
        load_dataset(DatasetConfig(**settings))
    assert load_dataset(DatasetConfig(**settings, labels=["0", "1", header[2]])).labels[2] == header[2]
    written(train, [("c", "d", "2"), *PAIRS])
    assert load_dataset(DatasetConfig(**settings)).labels == ("0", "1", "2")


@pytest.mark.parametrize("columns", [None, NAMES])
def test_repeated_header(read, columns):
    """A repeated header line is rejected."""
    text = "sentence1,sentence2,label\na,b,1\n"
    errors = []
    result = read("x.csv", (text * 3) if columns is None else "a,b,1\n" + text, errors.append, columns=columns)
    assert result == [("a", "b", "1")] * (3 if columns is None else 2)
    assert all("is the header line again" in text for text in errors)
    assert len(errors) == (2 if columns is None else 1)


@pytest.mark.parametrize("first", ["花呗,借呗,1", "花呗,花呗,1", '"a, b",c,0', "7,a,b,1"])
def test_missing_header(read, first):
    """The error for a file without a header line names dataset.columns."""
    with pytest.raises(InputError, match=r"x.csv:1: the header has .*needs dataset.columns="):
        read("x.csv", f"{first}\n{first}\n")


@pytest.mark.parametrize("mark", [";", "|", "\t", "^", "\x01", "，", " ", "a"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.data"])
def test_delimiter(read, name, mark):
    """Any single character may be the delimiter."""
    rows = [NAMES, ["花呗,;", "\u4f60'", "1"]]
    if mark == "a":
        rows[0] = ["s1", "s2", "l"]
    fields = dict(zip(("sentence1_field", "sentence2_field", "label_field"), rows[0], strict=True))
    quoting = Quoting.double
    text = "".join(mark.join(f'"{cell}"' if mark in cell else cell for cell in row) + "\n" for row in rows)
    assert read(name, text, delimiter=mark, quoting=quoting, **fields) == [tuple(rows[1])]


def test_tab_delimiter(read):
    r"""The delimiter may be written as \t."""
    assert read("x.csv", "sentence1\tsentence2\tlabel\na,\tb\t1\n", delimiter=r"\t") == [("a,", "b", "1")]


@pytest.mark.parametrize("value", ['",,"', "'\"'", '""', '"\n"', "tab"])
def test_invalid_delimiter(value):
    """An invalid delimiter is rejected."""
    with pytest.raises(InputError, match=r"^dataset.delimiter=(.|\n)*: must be one character"):
        check_config(compose(["experiment=quickstart", f"dataset.delimiter={value}"]))


@pytest.mark.parametrize(("mark", "shown"), [(";", "';'"), ("\t", "a tab"), ("|", "'|'")])
def test_wrong_delimiter(read, mark, shown):
    """The error for a wrong delimiter suggests the likely one."""
    text = mark.join(NAMES) + "\n" + mark.join("ab1") + "\n"
    with pytest.raises(
        InputError, match=rf"x.csv:1: one column, .* seems to be {re.escape(shown)}; set dataset.delimiter"
    ):
        read("x.csv", text)
    with pytest.raises(
        InputError, match=rf"x.csv:1: 1 columns.* seems to be {re.escape(shown)}: set dataset.delimiter"
    ):
        read("x.csv", mark.join("ab1") + "\n", columns=NAMES)


QUOTED = '"sentence1"\t"sentence2"\t"label"\n"a ""x"""\t"b\nc\td"\t"1"\n'


def test_quoted_tsv_header(read):
    """A TSV file with a quoted header has quoted cells."""
    assert read("x.tsv", QUOTED) == [('a "x"', "b\nc\td", "1")]
    assert read("x.tsv", "\n" + QUOTED.replace("\n", "\r\n")) == [('a "x"', "b\r\nc\td", "1")]


@pytest.mark.parametrize("label", ["label", '"label"'])
def test_quotation_marks_in_tsv(read, label):
    """In other TSV files, quotation marks are text."""
    result = read("x.tsv", f'sentence1\tsentence2\t{label}\n"a"\t"b\t"1\n', label_field=label)
    assert result == [('"a"', '"b', '"1')]


def test_quoted_first_row_without_header(read):
    """Without a header line, a quoted first row leaves the quoting open."""
    row = '"a"\t"b"\t"1"\n'
    with pytest.raises(InputError, match=r"x.tsv:1: every cell is in quotation marks; dataset.quoting=double .*=none"):
        read("x.tsv", row, columns=NAMES)
    assert read("x.tsv", row, columns=NAMES, quoting=Quoting.double) == [("a", "b", "1")]
    assert read("x.tsv", row, columns=NAMES, quoting=Quoting.none) == [('"a"', '"b"', '"1"')]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("sentence1\tsentence2\tlabel\n", '"a"\t"b"\t"1"\n"c"\t"d"\t"0"\n'),
        ("sentence1\tsentence2\tlabel\n", '"a ""x"""\t"b\tc"\t1\n'),
        ("label\tid\tsentence2\tsentence1\r\n\r\n", '1\tq7\t"a"\t"b"\r\n'),
        ("", '"a"\t"b"\t1\n"c"\t"d"\t0\n'),
    ],
)
def test_quoted_sentences(read, header, rows):
    """Quoted sentences in the first rows need dataset.quoting."""
    settings = {} if header else {"columns": NAMES}
    with pytest.raises(InputError, match=r"x.tsv:[123]: both sentences are in quotation marks.*=double .*=none"):
        read("x.tsv", header + rows, **settings)
    assert read("x.tsv", header + rows, quoting=Quoting.double, **settings)[0][0] in ("a", "b", 'a "x"')


@pytest.mark.parametrize("second", ['"c\td\t0', "c\td\t0", '"c"\td\t0', '"c" and "e"\t"d"\t0'])
def test_some_quoted_sentences(read, second):
    """If only some sentences are quoted, the marks are text."""
    text = f'sentence1\tsentence2\tlabel\n"a"\t"b"\t1\n{second}\n'
    assert read("x.tsv", text)[0] == ('"a"', '"b"', "1")


def test_quoting_none(read):
    """With dataset.quoting=none, quotation marks in CSV are text."""
    assert read("x.csv", 'sentence1,sentence2,label\n"a,b",1\n', quoting=Quoting.none) == [('"a', 'b"', "1")]


def test_quoting_hint(read):
    """The error for a TSV file that seems to be quoted names dataset.quoting."""
    with pytest.raises(InputError, match=r"x.tsv:2: 4 columns.* set dataset.quoting=double"):
        read("x.tsv", 'sentence1\tsentence2\tlabel\n"a\tb"\tc\t1\n')


@pytest.mark.parametrize(
    ("rows", "opened", "message"),
    [
        ('a,b,1\n"c,d,0\ne,f,1\n', 3, "is not closed;"),
        ('a,b,1\nc,"d,0\ne,f,1\n', 3, "is not closed;"),
        ('"a ""x""",b,1\n"c\nd",e,0\nf,"g\nh,1\n', 5, "is not closed;"),
        ('"c,d,0\ne,f,1\n"g",h,1\n', 2, "is not closed before line 4"),
        ('a,b,1\n"c,d,0\n' + "e,f,1\n" * 5000 + 'g,"h",1\n', 3, "is not closed before line 5004"),
        ('a,b,1\n"c",""d,0\n', 3, "broken csv"),
        ('"a""', 2, "is not closed;"),
    ],
)
def test_unclosed_quotation_mark(read, rows, opened, message):
    """The error for an unclosed quotation mark names the line where it opens."""
    with pytest.raises(InputError, match=rf"x.csv:{opened}: (a quotation mark opens a cell here and )?{message}"):
        read("x.csv", "sentence1,sentence2,label\n" + rows)


def test_rows_joined_by_quotation_mark(read):
    """The error for rows joined by an unclosed quotation mark names the first line."""
    with pytest.raises(InputError, match=r"x.csv:2: 2 columns; 3 .*spans 2 lines: is a quotation mark not closed"):
        read("x.csv", 'sentence1,sentence2,label\n"a,b,1\nc,d",0\n')


def test_long_cell(read):
    """CSV cells may be as long as JSON values."""
    long = "花" * 2_000_000
    csv.field_size_limit(131_072)
    assert read("x.csv", f"sentence1,sentence2,label\n{long},b,1\n") == [(long, "b", "1")]
    assert read("x.jsonl", json.dumps(dict(zip(NAMES, (long, "b", "1"), strict=True)))) == [(long, "b", "1")]


@pytest.mark.parametrize(("name", "settings"), [("x.csv", {}), ("x.jsonl", {}), ("x.csv", {"encoding": "utf-16-le"})])
def test_endless_line(read, monkeypatch, name, settings):
    """A line without end is rejected before it fills the memory."""
    monkeypatch.setattr(content, "LONGEST", 1000)
    with pytest.raises(InputError, match=rf"{name}: has a line of more than"):
        read(name, "x" * 5000, **settings)


def test_carriage_returns(read):
    """The error for carriage returns as line breaks names them."""
    with pytest.raises(InputError, match=r"x.csv:1: broken csv: a carriage return stands alone"):
        read("x.csv", "sentence1,sentence2,label\ra,b,1\r")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sentence1,sentence2,label\na,b,1\n", "CSV: set dataset.format=csv"),
        ('\n"a","b",1\n', "CSV: set dataset.format=csv"),
        ("a;b;1\n", "CSV: set dataset.format=csv"),
        ("a\tb\t1\n", "TSV: set dataset.format=tsv"),
    ],
)
@pytest.mark.parametrize("name", ["x", "x.json"])
def test_table_read_as_json(read, name, text, hint):
    """The error for a table read as JSON lines suggests its format."""
    with pytest.raises(InputError, match=f"x.*:[12]: broken JSON: .*; the line seems to be {hint}"):
        read(name, text)


@pytest.mark.parametrize("text", ["{a,b\n", "text\n", '{"sentence1": "a", "sentence2": "b", "label": 1}\na,b,1\n'])
def test_broken_json(read, text):
    """Other broken JSON is not mistaken for a table."""
    with pytest.raises(InputError, match="broken JSON: ") as refused:
        read("x.json", text)
    assert "seems to be" not in str(refused.value)


@pytest.mark.parametrize("location", [".", "own.zip"])
def test_own_files_with_afqmc_config(tmp_path, monkeypatch, location):
    """The error for the user's own files with dataset=afqmc suggests dataset=files."""
    for name in ("a.csv", "b.csv"):
        written(tmp_path / name, [NAMES, *PAIRS])
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.write(tmp_path / "a.csv", "a.csv")
    monkeypatch.chdir(tmp_path)
    files = [f"dataset.path={location}", "dataset.train_file=a.csv", "dataset.dev_file=a.csv"]
    with pytest.raises(InputError, match=r"no (such file|test.json).*; a run on files of your own needs dataset=files"):
        resolve_files(compose(files).dataset)
    assert set(resolve_files(compose(["dataset=files", *files]).dataset)) == {"train", "dev"}
