"""Data files that are not plain text: compressed, Excel, Parquet, Git LFS pointers; and unsupported formats."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import sys
import zipfile
from decimal import Decimal

import openpyxl
import pyarrow
import pytest
from backports import zstd
from pyarrow import parquet

from afqmc.data.config import DatasetConfig, Format, OnBadRow
from afqmc.data.loading import load_dataset
from afqmc.data.parsing import Pair, read_pairs
from afqmc.data.sample import sample_files
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError

CSV = "sentence1,sentence2,label\n花呗怎么还款,借呗怎么还款,0\n你好,您好,1\n".encode()
JSON = '{"sentence1": "花呗怎么还款", "sentence2": "借呗怎么还款", "label": 0}\n'.encode()
PAIRS = [("花呗怎么还款", "借呗怎么还款", "0"), ("你好", "您好", "1")]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4392205\n"


def zstd_compress(content):
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})


COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd_compress}
NAMES = ["sentence1", "sentence2", "label"]


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a file, if it gets bytes, and reads its pairs."""

    def read(name, content=None, labelled=True, on_error=None, **settings):
        path, config = tmp_path / name, DatasetConfig(**settings)
        if content is not None:
            path.write_bytes(content)
        return list(read_pairs(DataFile.on_disk(path, config), config, labelled=labelled, on_error=on_error))

    return read


def triples(pairs):
    return [(pair.sentence1, pair.sentence2, pair.label) for pair in pairs]


def workbook(rows, sheets=("pairs",), first="visible"):
    book, content = openpyxl.Workbook(), io.BytesIO()
    book.active.title, book.active.sheet_state = sheets[0], first
    for row in rows:
        book.active.append(row)
    for name in sheets[1:]:
        book.create_sheet(name).append(["other"])
    book.save(content)
    return content.getvalue()


def parquet_of(**columns):
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.CSV.ZST"])
def test_compression(read, suffix, name):
    """Compression is recognised by content, the format by the name."""
    assert triples(read(name, COMPRESSED[suffix](CSV))) == PAIRS
    assert triples(read(name, CSV)) == PAIRS


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_concatenated_compressed_files(read, suffix):
    """Concatenated compressed files are read as one."""
    assert triples(read("x.csv", COMPRESSED[suffix](CSV[:20]) + COMPRESSED[suffix](CSV[20:]))) == PAIRS


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_damaged_compressed_file(read, suffix):
    """Truncated or damaged compressed files are rejected by name."""
    content = COMPRESSED[suffix](CSV * 1 + b"".join(b"%d,b,1\n" % number for number in range(9999)))
    middle = len(content) // 2
    for cut in (content[:middle], content[:12], content[:-1]):
        with pytest.raises(InputError, match=r"x.csv: cannot be read \("):
            read("x.csv", cut)
    with pytest.raises(InputError, match=r"x.csv"):  # by its bytes, or by the text that they decompress to
        read("x.csv", content[:middle] + b"\xff" * 20 + content[middle + 20 :])


def test_compressed_encodings(tmp_path):
    """Compressed GB18030 and UTF-16 files are read and streamed."""
    rows = [json.loads(line) for line in sample_files()["dev.json"].splitlines()[:50]]
    text = "".join(f"{row['sentence1']},{row['sentence2']},{row['label']}\n" for row in rows)
    for name, encoding in (("train.csv", "gb18030"), ("dev.csv", "utf-16")):
        (tmp_path / name).write_bytes(gzip.compress(("sentence1,sentence2,label\n" + text).encode(encoding)))
    config = DatasetConfig(train_file=str(tmp_path / "train.csv"), dev_file=str(tmp_path / "dev.csv"), streaming=True)
    data = load_dataset(config)
    assert next(data.train.chunks(99)).sentence1 == data.dev.sentence1
    assert len(data.dev) == 50


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_tables_in_zip(tmp_path, suffix):
    """Excel and Parquet files may be compressed and in a zip."""
    files = {
        "x.xlsx": workbook([NAMES, *PAIRS]),
        "x.parquet": parquet_of(**dict(zip(NAMES, zip(*PAIRS, strict=True), strict=True))),
        "x.csv": CSV,
    }
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            archive.writestr(name + suffix, COMPRESSED[suffix](content))
    config = DatasetConfig()
    for name in (*files, *(name + suffix for name in files)):
        file = DataFile.in_zip(tmp_path / "d.zip", name, config)
        assert triples(read_pairs(file, config, labelled=True)) == PAIRS


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.tsv", "x.xlsx", "x.parquet", "x.csv.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_lfs_pointer(tmp_path, name, packed):
    """A Git LFS pointer is recognised in any format."""
    path, config = tmp_path / name, DatasetConfig()
    path.write_bytes(POINTER)
    file = DataFile.on_disk(path, config)
    if packed:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            archive.writestr(name, POINTER)
        file = DataFile.in_zip(tmp_path / "d.zip", name, config)
    with pytest.raises(InputError, match=rf"{name}: is a Git LFS pointer, .*git lfs pull"):
        list(read_pairs(file, config, labelled=True))


def test_zip_is_lfs_pointer(tmp_path):
    """A zip that is a Git LFS pointer is recognised."""
    (tmp_path / "d.zip").write_bytes(POINTER)
    with pytest.raises(InputError, match=r"d.zip: is a Git LFS pointer, .*git lfs pull"):
        DataFile.in_zip(tmp_path / "d.zip", "dev.json", DatasetConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "is compressed by 7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "is compressed by RAR"),
        (b"\x04\x22\x4d\x18rest", "is compressed by LZ4"),
        (b"\xd0\xcf\x11\xe0rest", "is an old or password-protected Excel file"),
        (b"ARROW1\0\0rest", "is an Arrow"),
        (gzip.compress(gzip.compress(CSV)), "is compressed by gzip twice"),
        (b"train.csv".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
        (workbook([NAMES]), "is a zip or an Excel file"),
        (parquet_of(a=[1]), "is Parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # gzip and Excel files contain the time
)
def test_unsupported_formats(read, content, message):
    """A file in another format is rejected, and the error names the format."""
    for name in ("x.csv", "x.jsonl"):
        with pytest.raises(InputError, match=rf"{name}:1: {message}"):
            read(name, content)


def test_workbook_cells(read):
    """The cells of a workbook become the text that they show."""
    rows = [
        ["id", "sentence1", "sentence2", "label", None],
        [7, "a", "b", 1],
        [8.0, 12345, datetime.datetime(2026, 5, 1), "1"],
        [None, None, None, None, None],
        ["x9", 0.5, datetime.datetime(2026, 5, 1, 12, 30), 0.0],
        [9.5, True, datetime.time(8, 30), 0],
    ]
    assert read("x.xlsx", workbook(rows)) == [
        Pair(7, "a", "b", "1", 2),
        Pair(8, "12345", "2026-05-01", "1", 3),
        Pair("x9", "0.5", "2026-05-01T12:30:00", "0", 5),
        Pair("9.5", "true", "08:30:00", "0", 6),
    ]


def test_several_sheets(tmp_path):
    """The first of several sheets is read and reported."""
    for name, sheets in (("train.xlsx", ("说明", "b", "c")), ("dev.xlsx", ("only",))):
        (tmp_path / name).write_bytes(workbook([NAMES, *PAIRS], sheets))
    data = load_dataset(DatasetConfig(train_file=str(tmp_path / "train.xlsx"), dev_file=str(tmp_path / "dev.xlsx")))
    assert data.notes == (f"{tmp_path}/train.xlsx: read from the sheet '说明', the first of 3",)


def test_error_names_the_sheet(read, tmp_path):
    """Errors for a workbook with several sheets name the sheet that was read."""
    sheet = "read from the sheet '说明', the first of 2"
    with pytest.raises(InputError, match=f"x.xlsx:1: the header has q, and none of .*; {sheet}$"):
        read("x.xlsx", workbook([["q"]], ("说明", "pairs")))
    for rows in ([], [NAMES]):
        with pytest.raises(InputError, match=f"x.xlsx: no pairs; {sheet}; the pairs must be in the first sheet"):
            read("x.xlsx", workbook(rows, ("说明", "pairs")))
    file = DataFile.on_disk(tmp_path / "x.xlsx", DatasetConfig())
    (tmp_path / "x.xlsx").write_bytes(workbook([NAMES, *PAIRS], ("old", "pairs"), first="hidden"))
    assert triples(read_pairs(file, DatasetConfig(), labelled=True)) == PAIRS
    assert list(file.notes) == ["read from the hidden sheet 'old', the first of 2"]


def test_formula_without_result(read):
    """A formula without a saved result is reported."""
    errors = []
    rows = [
        [*NAMES, "more"],
        ["a", "b", 1, "=1"],
        [None] * 4,
        ["c", '=A1&"x"', 1],
        ["=A1", "=A2", "=1"],
        ["d", None, 0],
    ]
    result = read("x.xlsx", workbook(rows), on_error=lambda text: errors.append(text[text.index("x.xlsx") :]))
    assert triples(result) == [("a", "b", "1")]
    save = "open the workbook in Excel or LibreOffice and save it"
    assert errors == [
        f"x.xlsx:4: 'sentence2' is a formula without a saved result (=A1&\"x\"); {save}",
        f"x.xlsx:5: 'sentence1' is a formula without a saved result (=A1); {save}",
        "x.xlsx:6: 'sentence2' is empty",
    ]


def test_workbook_without_header(read):
    """A workbook without a header line is read with dataset.columns."""
    assert triples(read("x.xlsx", workbook(PAIRS), columns=NAMES)) == PAIRS
    with pytest.raises(InputError, match=r"x.xlsx:1: is a header line"):
        read("x.xlsx", workbook([NAMES, *PAIRS]), columns=NAMES)


def test_invalid_workbook_rows(read):
    """Errors in a workbook name the row."""
    errors = []
    rows = [NAMES, ["a", "#N/A", 1], ["a", "b"], [None, "b", 1], ["a", "b", 1, "more"], ["a", "b", 1.5]]
    read("x.xlsx", workbook(rows), on_error=lambda text: errors.append(text[text.index("x.xlsx") :]))
    assert errors[:4] == [
        "x.xlsx:2: 'sentence2' is #N/A, the result of a formula that failed",
        "x.xlsx:3: 'label' is empty",
        "x.xlsx:4: 'sentence1' is empty",
        "x.xlsx:5: 4 columns; 3 were expected (sentence1, sentence2, label)",
    ]
    for content in (b"PK\x03\x04 no workbook", b"", CSV, workbook([NAMES])[:900]):
        with pytest.raises(InputError, match=r"x.xlsx: not a readable .xlsx workbook"):
            read("x.xlsx", content)
    with pytest.raises(InputError, match=r"x.xlsx:1: the header has q, r, and none of sentence1"):
        read("x.xlsx", workbook([["q", "r"], ["a", "b"]]))


def test_formula_results(read, tmp_path):
    """Formulas are read as their saved results."""
    content = workbook([NAMES, ["a", "b", "=1+0"]])
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(tmp_path / "x.xlsx", "w") as after:
        for name in before.namelist():
            part = before.read(name)
            assert "sheet1" not in name or b"<v />" in part or b"<v></v>" in part
            after.writestr(name, part.replace(b"<v />", b"<v>1</v>").replace(b"<v></v>", b"<v>1</v>"))
    assert triples(read("x.xlsx")) == [("a", "b", "1")]


LABELS = [[0, 1], [0.0, 1.0], ["0", "1"], [Decimal("0"), Decimal("1.0")], [b"0", b"1"]]


@pytest.mark.parametrize("labels", [*LABELS, pyarrow.array(["0", "1"]).dictionary_encode()])
def test_parquet_label_types(read, labels):
    """Parquet labels may have any type."""
    sentences = [list(column) for column in zip(*PAIRS, strict=True)]
    content = parquet_of(sentence1=sentences[0], other=[[1], [2]], sentence2=sentences[1], label=labels, id=[5, 9])
    result = read("x.parquet", content)
    assert triples(result) == PAIRS
    assert [pair.id for pair in result] == [5, 9]
    assert [pair.line for pair in result] == [1, 2]


def test_numeric_ids(read):
    """Only ids that are numbers become numbers."""
    rows = [["id", *NAMES[:2]], ["0007", "a", "b"], ["7", "c", "d"], [7, "e", "f"], [8.0, "g", "h"], ["٣", "i", "j"]]
    ids = ["0007", "7", 7, 8, "٣"]
    assert [pair.id for pair in read("x.xlsx", workbook(rows), labelled=False)] == ids
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    for given, expected in [(["0007", "7"], ["0007", "7"]), ([7.0, 8.0], [7, 8]), ([Decimal(7), Decimal(8)], [7, 8])]:
        result = read("x.parquet", parquet_of(id=given, **columns), labelled=False)
        assert [(pair.id, type(pair.id)) for pair in result] == [(value, type(value)) for value in expected]


def test_bad_cells(read):
    """A cell that cannot be converted to text makes its row invalid, except in columns that are not read."""
    count = 20
    texts = pyarrow.array([b"a"] * count)
    broken = pyarrow.array([b"a", b"\xff"] + [b"a"] * (count - 2)).cast(pyarrow.string(), safe=False)
    numbers = [1.0, float("inf")] + [0.0] * (count - 2)
    for column, kind in [
        ("sentence1", broken), ("sentence1", broken.cast(pyarrow.binary())), ("label", numbers), ("label", broken),
    ]:  # fmt: skip
        columns = {"sentence1": texts, "sentence2": texts, "label": ["1"] * count} | {column: kind}
        content = parquet_of(**columns, other=broken, another=numbers)
        with pytest.raises(InputError, match=rf"x.parquet:2: '{column}' (has bytes that are not UTF-8|cannot be rea)"):
            read("x.parquet", content)
        assert [pair.line for pair in read("x.parquet", content, on_bad_row=OnBadRow.skip)] == [1, *range(3, count + 1)]
        assert len(read("x.parquet", content, labelled=False)) == count if column == "label" else True
    rows = [[*NAMES, "other"], ["a", "b", 1, "#N/A"]]
    assert triples(read("x.xlsx", workbook(rows))) == [("a", "b", "1")]


def test_invalid_parquet_rows(read):
    """Errors in a Parquet file name the row."""
    columns = {"sentence1": ["a", None], "sentence2": ["b", "c"], "label": [1.0, float("nan")]}
    with pytest.raises(InputError, match=r"x.parquet:2: 'sentence1' is empty"):
        read("x.parquet", parquet_of(**columns))
    with pytest.raises(InputError, match=r"x.parquet:2: 'label' is empty"):
        read("x.parquet", parquet_of(**columns | {"sentence1": ["a", "b"]}))
    with pytest.raises(InputError, match=r"x.parquet:1: 'sentence1' is \['a'\]; it must be a string"):
        read("x.parquet", parquet_of(**columns | {"sentence1": [["a"], ["b"]]}))
    with pytest.raises(InputError, match=r"x.parquet:1: no 'label'"):
        read("x.parquet", parquet_of(sentence1=["a"], sentence2=["b"], lable=[1]))
    with pytest.raises(InputError, match=r"x.parquet: not a readable Parquet file"):
        read("x.parquet", parquet_of(**columns)[:-9])


def test_many_parquet_rows(read):
    """All rows of a Parquet file with several batches are read."""
    many = [f"s{number}" for number in range(20_000)]
    result = read("x.parquet", parquet_of(sentence1=many, sentence2=many, label=[n % 2 for n in range(20_000)]))
    assert [pair.sentence1 for pair in result] == many
    assert result[-1].line == 20_000


@pytest.mark.parametrize(
    ("name", "content", "module"),
    [
        ("x.xlsx", workbook([NAMES]), "openpyxl"),
        ("x.parquet", parquet_of(a=[1]), "pyarrow.parquet"),
        ("x.csv", zstd.compress(CSV), "backports.zstd"),
    ],
)
def test_missing_library(read, monkeypatch, name, content, module):
    """The error for a missing library says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("backports.zstd", raising=False)
    with pytest.raises(
        InputError, match=rf"{name}: .* needs {module.partition('.parquet')[0]}; pip install 'afqmc\[tables\]'"
    ):
        read(name, content)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("train.csv.gz", {}, Format.csv),
        ("train.v1.tsv.zst", {}, Format.tsv),
        ("train.gz", {}, Format.jsonl),
        ("train.XLSX", {}, Format.xlsx),
        ("train.parquet.xz", {}, Format.parquet),
        ("train.data", {"delimiter": ";"}, Format.csv),
        ("train.json.gz", {"delimiter": ";"}, Format.jsonl),
        ("train.xlsx", {"format": Format.csv}, Format.csv),
    ],
)
def test_format_before_compression(tmp_path, name, settings, expected):
    """The format goes by the suffix before that of the compression."""
    (tmp_path / name).touch()
    assert DataFile.on_disk(tmp_path / name, DatasetConfig(**settings)).format is expected
