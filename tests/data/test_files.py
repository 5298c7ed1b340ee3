"""Files: JSON lines, CSV and TSV yield the same pairs, and every error names the file and the line."""

import gc
import io
import json
import os
import re
import zipfile
from pathlib import Path

import pytest

from afqmc.data.config import DatasetConfig, Format
from afqmc.data.parsing import Pair, read_pairs
from afqmc.data.sources import DataFile, find_member
from afqmc.utils.errors import InputError

BOM = "\ufeff"


def line(first="a", second="b", **others):
    return json.dumps({"sentence1": first, "sentence2": second, **others}, ensure_ascii=False) + "\n"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads the pairs of a file of the given name and content."""

    def read(name, content, labelled=True, on_error=None, **settings):
        path, config = tmp_path / name, DatasetConfig(**settings)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read_pairs(DataFile.on_disk(path, config), config, labelled=labelled, on_error=on_error))

    return read


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", BOM])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", line("花呗", '"好"说', label="1", id=7) + "\n" + line("c d", "e", label="0", id=8)),
        ("x.csv", 'id,sentence1,sentence2,label\n7,花呗,"""好""说",1\n\n8,c d,e,0\n'),
        ("x.tsv", 'id\tsentence1\tsentence2\tlabel\n7\t花呗\t"好"说\t1\n\n8\tc d\te\t0\n'),
        ("x.txt", 'label\tid\tsentence2\tsentence1\n1\t7\t"好"说\t花呗\n\n0\t8\te\tc d\n'),
    ],
)
def test_formats_agree(read, name, content, bom, newline):
    """Each format yields the same pairs."""
    result = read(name, bom + content.replace("\n", newline))
    last = 4 if name != "x.jsonl" else 3
    identity = (lambda number: number) if name == "x.jsonl" else str
    assert result == [Pair(identity(7), "花呗", '"好"说', "1", last - 2), Pair(identity(8), "c d", "e", "0", last)]


def test_quoted_csv_field(read):
    """A quoted CSV cell may contain commas and line breaks."""
    (pair,) = read("x.csv", 'sentence1,sentence2,label\n"a, b","c\nd",1\n')
    assert (pair.sentence1, pair.sentence2) == ("a, b", "c\nd")


def test_tsv_without_header(read):
    """A TSV file without a header is read with dataset.columns."""
    (pair,) = read("x.tsv", '"a\tb\t1\n', columns=["sentence1", "sentence2", "label"])
    assert pair == Pair(0, '"a', "b", "1", 1)


def test_field_names(read):
    """The columns named by the *_field keys are read."""
    fields = {"sentence1_field": "q1", "sentence2_field": "q2", "label_field": "same", "id_field": "key"}
    (pair,) = read("x.jsonl", '{"q1": "a", "q2": "b", "same": "yes", "key": "k"}\n', **fields)
    assert pair == Pair("k", "a", "b", "yes", 1)


def test_rows_without_ids_are_numbered(read):
    """Pairs of a file without ids are numbered from 0."""
    assert [pair.id for pair in read("x.jsonl", line(label="1") + line(label="0", id=None))] == [0, 1]
    assert [pair.id for pair in read("x.csv", "sentence1,sentence2,label,id\na,b,1,\nc,d,0,\n")] == [0, 1]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None], "x.jsonl:2: has no 'id', but the rows before it have one; all rows or none need an id"),
        ([None, 0], "x.jsonl:2: has an 'id', but the rows before it have none"),
        ([7, ""], "x.jsonl:2: has no 'id'"),
        ([1, 1.5], "x.jsonl:2: 'id' is 1.5; an id must be a string or a whole number"),
        ([["a"]], "x.jsonl:1: 'id' is \\['a'\\]; an id must be"),
        ([True], "x.jsonl:1: 'id' is True; an id must be"),
    ],
)
def test_mixed_ids(read, ids, message):
    """Invalid ids, and files where only some rows have one, are rejected."""
    content = "".join(line(label="1", **({} if value is None else {"id": value})) for value in ids)
    with pytest.raises(InputError, match=message):
        read("x.jsonl", content)
    with pytest.raises(InputError, match=message):
        read("x.jsonl", content, labelled=False)


def test_named_id_field_is_required(read):
    """An id_field that the user has set must exist in every row."""
    missing = "no 'q_id'; did you mean 'qid'. .dataset.id_field names it.; dataset.id_field=id numbers the rows"
    for name, content in (("x.jsonl", line(label="1", qid=7)), ("x.csv", "sentence1,sentence2,label,qid\na,b,1,7\n")):
        assert read(name, content, id_field="qid")[0].id in (7, "7")
        with pytest.raises(InputError, match=missing):
            read(name, content, id_field="q_id")
    with pytest.raises(InputError, match="x.jsonl:1: 'qid' is empty"):
        read("x.jsonl", line(label="1", qid=""), id_field="qid")


@pytest.mark.parametrize(
    ("value", "name"), [("1", "1"), (1, "1"), (True, "true"), ("yes", "yes"), ("1 ", "1"), ("False", "false")]
)
def test_label_names(read, value, name):
    """A label value is converted to its name."""
    assert read("x.jsonl", line(label=value))[0].label == name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", line(label="1") + "{\n", "x.jsonl:2: broken JSON: Expecting property name"),
        ("x.jsonl", "[\n" + line(label="1") + "]\n", "x.jsonl:1: .*one JSON object per line, not an array"),
        pytest.param("x.jsonl", "[" * 100_000, "x.jsonl:1: broken JSON", id="deep"),
        ("x.jsonl", '"a"\n', "x.jsonl:1: is str; each line must be a JSON object"),
        ("x.jsonl", '{"sentence1": "a", "sentence3": "b"}', "x.jsonl:1: no 'sentence2'; did you mean 'sentence3'"),
        ("x.jsonl", '{"sentence1": "a", "Sentence2": "b"}', "x.jsonl:1: no 'sentence2'; did you mean 'Sentence2'"),
        ("x.jsonl", '{"sentence1": "a"}', r"x.jsonl:1: no 'sentence2' \(dataset.sentence2_field names it\)"),
        (
            "x.jsonl",
            '{"sentence1": "a", "label": 1, "label": 0}',
            "x.jsonl:1: .*the key 'label' appears twice",
        ),
        (
            "x.jsonl",
            '{"sentence1": "a:b", "sentence2" : "c", "sentence2" : "c", "label": 0}',
            "x.jsonl:1: .*the key 'sentence2' appears twice",
        ),
        ("x.jsonl", line(label="1").strip() + " {}", "x.jsonl:1: broken JSON: Extra data"),
        (
            "x.jsonl",
            '{"p": "a", "q": "b"}',
            r"x.jsonl:1: no 'sentence1'; allowed: p, q \(dataset.sentence1_",
        ),
        ("x.jsonl", line(label="1") + "\n" + line(), r"x.jsonl:3: no 'label' \(dataset.label_field names it\)"),
        ("x.jsonl", line("", label="1"), "x.jsonl:1: 'sentence1' is empty"),
        ("x.jsonl", line("a", " \u3000", label="1"), "x.jsonl:1: 'sentence2' is empty"),
        ("x.jsonl", line(5, label="1"), "x.jsonl:1: 'sentence1' is 5; it must be a string"),
        ("x.jsonl", line(label=1.0), "x.jsonl:1: 'label' is 1.0; it must be a string or a whole number"),
        ("x.jsonl", line(label=["1"]), r"x.jsonl:1: 'label' is \['1'\]; it must be"),
        ("x.jsonl", line(label="1") + line(label=0), "x.jsonl:2: mixed label types: 0 here, str before"),
        ("x.jsonl", line(label=1) + line(label=True), "x.jsonl:2: mixed label types: True here, int before"),
        ("x.jsonl", line(label="1") + "x", "x.jsonl:2: broken JSON"),
        ("x.csv", "sentence1,sentence2,label\na,b,1\na,b\n", "x.csv:3: 2 columns; 3 were expected .sentence1, "),
        ("x.csv", 'sentence1,sentence2,label\n"a"b,b,1\n', "x.csv:2: broken csv"),
        ("x.csv", 'sentence1,sentence2,label\n"a,b,1\n', "x.csv:2: a quotation mark opens .* and is not closed"),
        ("x.csv", "sentence1,sentence2,label\na,b,\n", "x.csv:2: 'label' is empty"),
        (
            "x.jsonl",
            line("\u200b\ufeff ", label="1"),
            r"'sentence1' is empty: .* characters, such as '\\u200b'",
        ),
        ("x.jsonl", line("a\0b", label="1"), "x.jsonl:1: 'sentence1' contains a NUL character"),
        ("x.csv", "a,b,1\nc,d,0\n", "x.csv:1: the header has a, b, 1, and none of sentence1, .*needs dataset.columns="),
        ("x.csv", "sentence1;sentence2;label\na;b;1\n", "x.csv:1: one column, .*: its delimiter seems to be ';'"),
        ("x.csv", "sentence1\tsentence2\tlabel\na\tb\t1\n", "x.csv:1: one column, .*: its delimiter seems to be a tab"),
        ("x.csv", "sentence1,sentence2,label,label\na,b,1,1\n", "x.csv:1: the header has 'label' twice"),
        ("x.jsonl", line().encode("utf-16-le"), "x.jsonl:1: contains zero bytes: a binary file, or UTF-16"),
        ("x.csv", b"PK\x03\x04\0\0", "x.csv:1: is a zip or an Excel file"),
        ("x.csv", b"\x1f\x8b\0\0", "x.csv: cannot be read"),
    ],
)
def test_invalid_rows(read, name, content, message):
    """An invalid row is rejected, with its file and line."""
    with pytest.raises(InputError, match=message):
        read(name, content)


def test_texts_like_json(read):
    """Colons, nested objects and spaces around a row do not change what is read."""
    rows = read("x.jsonl", ' {"sentence1" : "a: \\"b\\":1", "sentence2": "{c:d}", "label": 1, "e": {"f": {}}} \r\n')
    assert rows == [Pair(0, 'a: "b":1', "{c:d}", "1", 1)]


def test_on_error(read):
    """With on_error, every invalid row is reported and the other rows are read."""
    errors = []
    result = read("x.jsonl", "{\n" + line(label="1") + line("", label="0") + line(label=0), on_error=errors.append)
    assert [pair.line for pair in result] == [2]
    assert [re.search(r":(\d): (.*)", text).group(1) for text in errors] == ["1", "3", "4"]


def test_unlabelled_file(read):
    """An unlabelled file is read without labels."""
    assert [pair.label for pair in read("x.jsonl", line() + line(), labelled=None)] == [None, None]


def test_labels_are_ignored(read):
    """With labelled=False, labels are not read."""
    assert [pair.label for pair in read("x.jsonl", line(label=1.5) + line(), labelled=False)] == [None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (line() + line(label="1"), ":2: has a 'label', but the rows before it have none; all rows or none"),
        (line(label="1") + line(), ":2: has no 'label', but the rows before it have one; all rows or none"),
    ],
)
def test_optional_labels(read, content, message):
    """If labels are optional, all rows or none must have one."""
    with pytest.raises(InputError, match=message):
        read("x.jsonl", content, labelled=None)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("x.json", Format.auto, Format.jsonl),
        ("x.CSV", Format.auto, Format.csv),
        ("x.tsv", Format.auto, Format.tsv),
        ("x.data", Format.auto, Format.jsonl),
        ("x.csv", Format.jsonl, Format.jsonl),
    ],
)
def test_format_by_suffix(tmp_path, name, given, expected):
    """The format goes by the suffix unless dataset.format is set."""
    (tmp_path / name).touch()
    assert DataFile.on_disk(tmp_path / name, DatasetConfig(format=given)).format is expected


def test_missing_file(tmp_path):
    """The error for a missing file suggests the most similar name in its directory."""
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(InputError, match="train.json: no such file; did you mean 'train.jsonl'"):
        DataFile.on_disk(tmp_path / "train.json", DatasetConfig())
    with pytest.raises(InputError, match="is a directory; a file was expected"):
        DataFile.on_disk(tmp_path, DatasetConfig())


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zip_member_at_any_depth(tmp_path):
    """A file in a zip is found at any depth."""
    path = write_zip(tmp_path / "d.zip", {"__MACOSX/train.csv": "junk", "a/b/train.csv": "sentence1,sentence2\nx,y\n"})
    config = DatasetConfig()
    file = DataFile.in_zip(path, "train.csv", config)
    assert file.name == f"{path}/a/b/train.csv"
    for _ in range(2):
        assert [pair.sentence1 for pair in read_pairs(file, config, labelled=False)] == ["x"]


def test_missing_zip_member(tmp_path):
    """The error for a missing file in a zip lists the files it has."""
    path = write_zip(tmp_path / "d.zip", {"a/train.json": "", "__MACOSX/dev.json": ""})
    with pytest.raises(InputError, match="d.zip: no dev.json in it; it holds a/train.json"):
        DataFile.in_zip(path, "dev.json", DatasetConfig())


def test_not_a_zip(tmp_path):
    """A file that is not a zip is rejected."""
    (tmp_path / "d.zip").write_text("not a zip")
    with pytest.raises(InputError, match="d.zip: not a readable zip"):
        DataFile.in_zip(tmp_path / "d.zip", "dev.json", DatasetConfig())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", line(label=None)),
        ("x.jsonl", line(None, label="1")),
        ("x.csv", "sentence1,sentence2,label\na,b,\n"),
    ],
)
def test_empty_field_is_not_suggested(read, name, content):
    """An existing field without a value is reported as empty, not as misspelled."""
    with pytest.raises(InputError, match=r":\d: '(label|sentence1)' is empty$"):
        read(name, content)


def test_unpaired_surrogate(read):
    """A sentence with an unpaired surrogate is rejected, with its file and line."""
    with pytest.raises(InputError, match="x.jsonl:1: 'sentence1'"):
        read("x.jsonl", r'{"sentence1": "\ud83d", "sentence2": "b", "label": "1"}')


def test_number_with_too_many_digits(read):
    """A JSON number with too many digits is rejected, with its file and line."""
    with pytest.raises(InputError, match="x.jsonl:1"):
        read("x.jsonl", line()[:-2] + f', "id": {"1" * 5000}}}')


def test_csv_line_after_skipped_line(read):
    """An error after a skipped line of a CSV file names the right line."""
    errors = []
    read("x.csv", b"sentence1,sentence2,label\na,\xff,1\na,b\n", on_error=errors.append, encoding="utf-8")
    assert [re.search(r":(\d): ", text).group(1) for text in errors] == ["2", "3"]


def test_zip_member_with_directory(tmp_path):
    """A file in a zip may be named with its directory."""
    path = write_zip(tmp_path / "d.zip", {"b/dev.csv": "", "a/dev.csv": ""})
    assert DataFile.in_zip(path, "a/dev.csv", DatasetConfig()).name == f"{path}/a/dev.csv"


@pytest.mark.parametrize(
    ("names", "name", "member_name"),
    [
        (["old/dev.csv", "dev.csv", "__MACOSX/dev.csv"], "dev.csv", "dev.csv"),
        (["x/y/dev.csv", "a/dev.csv"], "dev.csv", "a/dev.csv"),
        (["xdev.csv", "dev.csv/", "a/dev.csv/x"], "dev.csv", None),
        (["a/"], "", None),
    ],
)
def test_shortest_zip_member(tmp_path, names, name, member_name):
    """If several files in a zip match, the one with the shortest path is read."""
    path = write_zip(tmp_path / "d.zip", dict.fromkeys(names, ""))
    with zipfile.ZipFile(path) as archive:
        member = find_member(archive, name)
    assert (member and member.filename) == member_name


def test_zip_stream_closes_its_file(tmp_path):
    """Closing the stream of a zip member closes the zip."""
    path = write_zip(tmp_path / "d.zip", {"dev.jsonl": line() * 10})
    with DataFile.in_zip(path, "dev.jsonl", DatasetConfig()).open() as stream:
        assert not isinstance(stream, io.BytesIO)
        assert next(iter(stream)) == line().encode()
    rows = read_pairs(DataFile.in_zip(path, "dev.jsonl", DatasetConfig()), DatasetConfig(), labelled=False)
    next(rows)
    del rows  # before its end; a file left open would raise a ResourceWarning, which is an error here
    gc.collect()


def test_encrypted_zip_member(tmp_path):
    """An encrypted file in a zip is rejected by name."""
    path, config = write_zip(tmp_path / "d.zip", {"dev.csv": "sentence1,sentence2\nx,y\n"}), DatasetConfig()
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the local header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="d.zip/dev.csv: cannot be read .*encrypted"):
        list(read_pairs(DataFile.in_zip(path, "dev.csv", config), config, labelled=False))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damaged_zip_member(tmp_path, method):
    """A damaged file in a zip is rejected by name."""
    path, config = write_zip(tmp_path / "d.zip", {"dev.csv": "sentence1,sentence2\nx,y\n"}, method), DatasetConfig()
    content = bytearray(path.read_bytes())
    start = 30 + len("dev.csv")  # the local header
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match="d.zip"):
        list(read_pairs(DataFile.in_zip(path, "dev.csv", config), config, labelled=False))


def test_pipe_or_device(tmp_path):
    """A pipe or device is rejected without blocking."""
    os.mkfifo(tmp_path / "pairs.jsonl")
    for path in (tmp_path / "pairs.jsonl", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"dataset.dev_file={path}: is not a regular file"):
            DataFile.on_disk(path, DatasetConfig(), "dataset.dev_file")
