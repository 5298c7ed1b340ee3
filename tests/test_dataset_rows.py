"""CSV and TSV: header lines, delimiters, quotation marks, and cells that are long or never end."""

import csv
import json
import re
import zipfile

import pytest

from afqmc.config import compose
from afqmc.config.schema import check
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
    """Read a file of the given name and content as triples."""

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
def test_a_header_line_is_not_taken_for_a_pair(read, header):
    settings = {
        "columns": ["q1", "q2", "same"],
        "sentence1_field": "q1",
        "sentence2_field": "q2",
        "label_field": "same",
    }
    with pytest.raises(InputError, match=r"x.tsv:1: is a header line \(.*omit dataset.columns"):
        read("x.tsv", f"{header}\na\tb\t1\n", **settings)


@pytest.mark.parametrize("first", ["label\tb\t1", "花呗\tsentence1\t0", "title\tb\tyes", "标签\t句子\t1"])
def test_a_pair_that_holds_one_such_word_is_a_pair(read, first):
    assert len(read("x.tsv", f"{first}\na\tb\t1\n", columns=NAMES)) == 2


HEADERS = [("句子1", "句子2", "标签"), ("s_one", "s_two", "is_dup"), ("甲", "乙", "gold")]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("labelled", [True, False, None])
@pytest.mark.parametrize("on_bad_row", list(OnBadRow))
def test_a_first_row_whose_label_alone_is_unknown_is_a_header_line(tmp_path, header, labelled, on_bad_row):
    config = DatasetConfig(columns=NAMES, on_bad_row=on_bad_row)
    file = DataFile.on_disk(written(tmp_path / "x.csv", [header, *PAIRS]), config)
    with pytest.raises(InputError, match=rf"x.csv:1: seems to be a header line: its label '{header[2]}' is unknown"):
        list(read_pairs(file, config, labelled=labelled, index={"0": 0, "1": 1}))


@pytest.mark.parametrize(
    ("first", "rest"), [("7", PAIRS), ("", PAIRS), ("-1", PAIRS), ("x", [("a", "b", "y"), *PAIRS]), ("1", PAIRS)]
)
def test_other_first_rows_of_a_prediction_are_pairs(tmp_path, first, rest):
    config = DatasetConfig(columns=NAMES)
    file = DataFile.on_disk(written(tmp_path / "x.csv", [("c", "d", first), *rest]), config)
    assert len(list(read_pairs(file, config, labelled=False, index={"0": 0, "1": 1}))) == len(rest) + 1


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_class_of_the_first_training_row_alone_is_a_header_line(tmp_path, header, streaming):
    train, dev = written(tmp_path / "x.csv", [header, *PAIRS]), written(tmp_path / "dev.csv", PAIRS)
    settings = {"train_file": str(train), "dev_file": str(dev), "columns": NAMES, "streaming": streaming}
    with pytest.raises(InputError, match="x.csv:1: seems to be a header line: no other row has its label"):
        load_dataset(DatasetConfig(**settings))
    assert load_dataset(DatasetConfig(**settings, labels=["0", "1", header[2]])).labels[2] == header[2]
    written(train, [("c", "d", "2"), *PAIRS])
    assert load_dataset(DatasetConfig(**settings)).labels == ("0", "1", "2")


@pytest.mark.parametrize("columns", [None, NAMES])
def test_a_header_line_that_comes_again_is_refused(read, columns):
    text = "sentence1,sentence2,label\na,b,1\n"
    said = []
    found = read("x.csv", (text * 3) if columns is None else "a,b,1\n" + text, said.append, columns=columns)
    assert found == [("a", "b", "1")] * (3 if columns is None else 2)
    assert all("is the header line again" in text for text in said)
    assert len(said) == (2 if columns is None else 1)


@pytest.mark.parametrize("first", ["花呗,借呗,1", "花呗,花呗,1", '"a, b",c,0', "7,a,b,1"])
def test_a_file_without_a_header_line_needs_its_columns_named(read, first):
    with pytest.raises(InputError, match=r"x.csv:1: the header has .*needs dataset.columns="):
        read("x.csv", f"{first}\n{first}\n")


@pytest.mark.parametrize("mark", [";", "|", "\t", "^", "\x01", "，", " ", "a"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.data"])
def test_any_one_character_may_be_the_delimiter(read, name, mark):
    rows = [NAMES, ["花呗,;", "\u4f60'", "1"]]
    if mark == "a":
        rows[0] = ["s1", "s2", "l"]
    fields = dict(zip(("sentence1_field", "sentence2_field", "label_field"), rows[0], strict=True))
    quoting = Quoting.double
    text = "".join(mark.join(f'"{cell}"' if mark in cell else cell for cell in row) + "\n" for row in rows)
    assert read(name, text, delimiter=mark, quoting=quoting, **fields) == [tuple(rows[1])]


def test_a_tab_may_be_spelled(read):
    assert read("x.csv", "sentence1\tsentence2\tlabel\na,\tb\t1\n", delimiter=r"\t") == [("a,", "b", "1")]


@pytest.mark.parametrize("value", ['",,"', "'\"'", '""', '"\n"', "tab"])
def test_a_delimiter_that_cannot_be_one_is_refused(value):
    with pytest.raises(InputError, match=r"^dataset.delimiter=(.|\n)*: must be one character"):
        check(compose(["experiment=quickstart", f"dataset.delimiter={value}"]))


@pytest.mark.parametrize(("mark", "shown"), [(";", "';'"), ("\t", "a tab"), ("|", "'|'")])
def test_a_wrong_delimiter_is_refused_with_the_likely_one(read, mark, shown):
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


def test_a_tsv_whose_header_is_in_quotation_marks_is_quoted(read):
    assert read("x.tsv", QUOTED) == [('a "x"', "b\nc\td", "1")]
    assert read("x.tsv", "\n" + QUOTED.replace("\n", "\r\n")) == [('a "x"', "b\r\nc\td", "1")]


@pytest.mark.parametrize("label", ["label", '"label"'])
def test_any_other_tsv_has_quotation_marks_as_text(read, label):
    found = read("x.tsv", f'sentence1\tsentence2\t{label}\n"a"\t"b\t"1\n', label_field=label)
    assert found == [('"a"', '"b', '"1')]


def test_the_first_row_of_a_file_without_a_header_does_not_tell_its_quoting(read):
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
def test_quotation_marks_around_the_sentences_of_the_first_rows_are_refused(read, header, rows):
    settings = {} if header else {"columns": NAMES}
    with pytest.raises(InputError, match=r"x.tsv:[123]: both sentences are in quotation marks.*=double .*=none"):
        read("x.tsv", header + rows, **settings)
    assert read("x.tsv", header + rows, quoting=Quoting.double, **settings)[0][0] in ("a", "b", 'a "x"')


@pytest.mark.parametrize("second", ['"c\td\t0', "c\td\t0", '"c"\td\t0', '"c" and "e"\t"d"\t0'])
def test_some_sentences_in_quotation_marks_are_text(read, second):
    text = f'sentence1\tsentence2\tlabel\n"a"\t"b"\t1\n{second}\n'
    assert read("x.tsv", text)[0] == ('"a"', '"b"', "1")


def test_a_csv_may_have_quotation_marks_as_text(read):
    assert read("x.csv", 'sentence1,sentence2,label\n"a,b",1\n', quoting=Quoting.none) == [('"a', 'b"', "1")]


def test_a_tsv_that_seems_to_be_quoted_after_all_says_so(read):
    with pytest.raises(InputError, match=r"x.tsv:2: 4 columns.* set dataset.quoting=double"):
        read("x.tsv", 'sentence1\tsentence2\tlabel\n"a\tb"\tc\t1\n')


@pytest.mark.parametrize(
    ("rows", "opened", "told"),
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
def test_a_quotation_mark_that_is_not_closed_is_named_by_the_line_where_it_opens(read, rows, opened, told):
    with pytest.raises(InputError, match=rf"x.csv:{opened}: (a quotation mark opens a cell here and )?{told}"):
        read("x.csv", "sentence1,sentence2,label\n" + rows)


def test_rows_that_an_unclosed_quotation_mark_joined_are_named_by_their_first_line(read):
    with pytest.raises(InputError, match=r"x.csv:2: 2 columns; 3 .*spans 2 lines: is a quotation mark not closed"):
        read("x.csv", 'sentence1,sentence2,label\n"a,b,1\nc,d",0\n')


def test_a_cell_may_be_as_long_in_csv_as_in_json(read):
    long = "花" * 2_000_000
    csv.field_size_limit(131_072)
    assert read("x.csv", f"sentence1,sentence2,label\n{long},b,1\n") == [(long, "b", "1")]
    assert read("x.jsonl", json.dumps(dict(zip(NAMES, (long, "b", "1"), strict=True)))) == [(long, "b", "1")]


@pytest.mark.parametrize(("name", "settings"), [("x.csv", {}), ("x.jsonl", {}), ("x.csv", {"encoding": "utf-16-le"})])
def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory(read, monkeypatch, name, settings):
    monkeypatch.setattr(content, "LONGEST", 1000)
    with pytest.raises(InputError, match=rf"{name}: has a line of more than"):
        read(name, "x" * 5000, **settings)


def test_old_mac_line_breaks_are_named(read):
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
def test_a_table_that_is_read_as_json_is_named(read, name, text, hint):
    with pytest.raises(InputError, match=f"x.*:[12]: broken JSON: .*; the line seems to be {hint}"):
        read(name, text)


@pytest.mark.parametrize("text", ["{a,b\n", "text\n", '{"sentence1": "a", "sentence2": "b", "label": 1}\na,b,1\n'])
def test_other_broken_json_is_not_taken_for_a_table(read, text):
    with pytest.raises(InputError, match="broken JSON: ") as refused:
        read("x.json", text)
    assert "seems to be" not in str(refused.value)


@pytest.mark.parametrize("place", [".", "own.zip"])
def test_files_of_the_user_where_a_download_is_expected_are_named(tmp_path, monkeypatch, place):
    for name in ("a.csv", "b.csv"):
        written(tmp_path / name, [NAMES, *PAIRS])
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.write(tmp_path / "a.csv", "a.csv")
    monkeypatch.chdir(tmp_path)
    files = [f"dataset.path={place}", "dataset.train_file=a.csv", "dataset.dev_file=a.csv"]
    with pytest.raises(InputError, match=r"no (such file|test.json).*; a run on files of your own needs dataset=jsonl"):
        resolve_files(compose(files).dataset)
    assert set(resolve_files(compose(["dataset=jsonl", *files]).dataset)) == {"train", "dev"}
