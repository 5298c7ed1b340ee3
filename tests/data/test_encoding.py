"""Encodings: UTF-8, byte order marks, and GB18030 if nothing else is possible; otherwise an error."""

import io
import json
import os
from pathlib import Path

import pytest

from afqmc.config import compose
from afqmc.config.schema import check_config
from afqmc.data.config import DatasetConfig, Format
from afqmc.data.encoding import detected
from afqmc.data.loading import load_dataset
from afqmc.data.parsing import read_pairs
from afqmc.data.quality import analyze, summary_lines
from afqmc.data.sample import sample_files
from afqmc.data.sources import DataFile
from afqmc.diagnostics.data import data_findings
from afqmc.diagnostics.data import read_with_errors as diagnosed
from afqmc.utils.errors import InputError

ROWS = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:60]]
TABLE = "sentence1,sentence2,label\r\n" + "".join(
    f"{row['sentence1']},{row['sentence2']},{row['label']}\r\n" for row in ROWS
)
JSON = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
PAIRS = [(row["sentence1"], row["sentence2"], row["label"]) for row in ROWS]
OTHERS = {
    "big5": "我想問一下信用卡的帳單什麼時候出來。為什麼我的貸款申請沒有通過?請問銀行的利率是多少,怎麼計算的。",
    "shift_jis": "クレジットカードの請求書はいつ届きますか。東京都渋谷区。ﾌﾘｺﾐ ｻｷ ｷﾞﾝｺｳ",
    "euc_jp": "クレジットカードの請求書はいつ届きますか。東京都渋谷区神南一丁目。日本銀行",
    "euc_kr": "신용카드 명세서는 언제 나오나요. 대출 신청이 왜 승인되지 않았나요. 은행 이자율은 어떻게 계산되나요",
    "cp949": "신용카드 명세서는 언제 나오나요. 대출 신청이 왜 승인되지 않았나요. 똠방각하 펲시콜라",
    "cp1252": "Où est ma carte de crédit? La facture a été payée. Über die Größe der Gebühren. El niño comió mañana",
    "cp1251": "Когда приходит счёт по кредитной карте? СКОЛЬКО ДЕНЕГ НУЖНО ЗАПЛАТИТЬ",
    "koi8_r": "Когда приходит счёт по кредитной карте? да нет она оно мама папа",
    "cp1253": "Πότε έρχεται ο λογαριασμός της πιστωτικής κάρτας; Γιατί απορρίφθηκε",
    "cp1256": "متى تصل فاتورة بطاقة الائتمان؟ لماذا تم رفض طلب القرض الخاص بي؟",
    "cp874": "ใบแจ้งหนี้บัตรเครดิตจะมาเมื่อไหร่ ทำไมคำขอสินเชื่อของฉันถึงถูกปฏิเสธ",
}


def file_of(content, format=Format.csv):
    return DataFile("x", lambda: io.BytesIO(content), format)


def encoding_of(text, encoding):
    return detected(file_of(text.encode(encoding)))


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a file of the given name and content as triples."""

    def read(name, content, **settings):
        path, config = tmp_path / name, DatasetConfig(**settings)
        path.write_bytes(content)
        pairs = read_pairs(DataFile.on_disk(path, config), config, labelled=True)
        return [(pair.sentence1, pair.sentence2, pair.label) for pair in pairs]

    return read


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030", "gbk"])
def test_detected_encoding(read, name, encoding):
    """The encoding of a file is detected."""
    text = TABLE if name == "x.csv" else JSON
    assert read(name, text.encode(encoding)) == PAIRS


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_byte_orders(read, order):
    """UTF-16 is read in both byte orders."""
    assert read("x.csv", ("\ufeff" + TABLE).encode(f"utf-16-{order}")) == PAIRS
    assert read("x.csv", TABLE.encode(f"utf-16-{order}"), encoding=f"utf-16-{order}") == PAIRS


def test_short_gb18030_with_bom(read):
    """A byte order mark is enough to read a short file as GB18030."""
    content = "\ufeffsentence1,sentence2,label\n花呗,借呗,1\n".encode("gb18030")
    assert read("x.csv", content) == [("花呗", "借呗", "1")]


def test_gb18030_after_many_ascii_lines(read):
    """GB18030 is detected after any number of ASCII lines."""
    text = "sentence1,sentence2,label\n" + "a,b,1\n" * 3000 + TABLE.partition("\r\n")[2]
    assert read("x.csv", text.encode("gb18030")) == [("a", "b", "1")] * 3000 + PAIRS


@pytest.mark.parametrize("encoding", OTHERS)
@pytest.mark.parametrize("times", [1, 40])
def test_other_encodings_are_not_gb18030(encoding, times):
    """Text in another encoding is never detected as GB18030, whole, as words, or cut into pieces."""
    text = OTHERS[encoding]
    pieces = [text, *text.split(), *(text[start : start + 6] for start in range(0, len(text), 3))]
    for piece in filter(lambda piece: not piece.isascii(), pieces):
        content = b"sentence1,sentence2,label\n" + (piece.encode(encoding) + b"\n") * times
        with pytest.raises(InputError, match=r"^x:2: (is not valid UTF-8, and|can be read as UTF-8 and)"):
            detected(file_of(content))


@pytest.mark.parametrize("word", ["花呗", "你好", "没钱", "取钱", "小", "模", "银行", "借款还款"])
def test_few_chinese_words_are_ambiguous(word):
    """One or two Chinese words are not enough to detect GB18030."""
    assert encoding_of(f"{word}\n", "utf-8") == "utf-8"
    with pytest.raises(InputError, match=r"dataset\.encoding"):
        encoding_of(f"sentence1,sentence2\n{word},a\n", "gb18030")


@pytest.mark.parametrize("text", ["café, è bello", "£5 · 20 °C ½ «mot» ©", "Ελλάδα", "Привет", "שלום", "naïve – “x”"])
def test_utf_8_of_any_language(text):
    """Valid UTF-8 in any language is detected as UTF-8."""
    assert encoding_of(text + "\n", "utf-8") == "utf-8"


def test_error_lists_possible_encodings():
    """The error lists the encodings that can decode the file."""
    with pytest.raises(InputError, match=r"x:1: .* set dataset.encoding: gb18030, big5, .*cp1252, utf-8"):
        encoding_of("花呗\n", "gb18030")


@pytest.mark.parametrize("encoding", ["cp1251", "koi8_r", "cp1253", "cp1256", "cp874"])
def test_error_lists_encodings_of_the_script(encoding):
    """The error for text in another script lists the encodings of that script."""
    with pytest.raises(InputError, match=rf"set dataset.encoding: .*{encoding}.*, utf-8 ") as refused:
        encoding_of(OTHERS[encoding], encoding)
    assert "cp1252" not in str(refused.value)  # it can decode the bytes too, but to nonsense


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("content", [TABLE, JSON])
def test_utf_32_without_bom(read, encoding, content):
    """UTF-32 without a byte order mark is recognised, and the error names it."""
    with pytest.raises(InputError, match=f"UTF-32 without a byte order mark: set dataset.encoding={encoding}"):
        read("x.csv", content.encode(encoding))


@pytest.mark.parametrize("first", ["utf-8", "gb18030"])
def test_mixed_encodings(read, first):
    """A file in two encodings is rejected, with the line."""
    other = "gb18030" if first == "utf-8" else "utf-8"
    content = TABLE.encode(first) + "花呗怎么还款,花呗还款方式是什么,1\r\n".encode(other)
    line = 62 if first == "utf-8" else 2
    with pytest.raises(InputError, match=rf"x.csv:{line}: is not valid UTF-8"):
        read("x.csv", content)


@pytest.mark.parametrize("line", [2, 30, 61])
def test_damaged_utf_8(read, line):
    """A damaged line of UTF-8 is rejected, with its number."""
    lines = TABLE.encode().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1][:4] + lines[line - 1][5:]  # drop one byte of a character
    with pytest.raises(InputError, match=rf"x.csv:{line}: is not valid UTF-8"):
        read("x.csv", b"".join(lines))


def test_truncated_utf_8(read):
    """A file that ends within a character is rejected, with the line."""
    with pytest.raises(InputError, match=r"x.jsonl:1: is not valid UTF-8"):
        read("x.jsonl", '{"sentence1": "花呗怎么还款", "sentence2": "花'.encode()[:-1])


@pytest.mark.parametrize("line", [2, 40])
def test_damaged_gb18030(read, line):
    """A damaged line of GB18030 is rejected, with its number."""
    lines = TABLE.encode("gb18030").splitlines(keepends=True)
    lines[line - 1] = b"\xff" + lines[line - 1]
    with pytest.raises(InputError, match=rf"x.csv:2: .* \(line {line} is not valid GB18030\)"):
        read("x.csv", b"".join(lines))
    with pytest.raises(InputError, match=rf"x.csv:{line}: is not valid GB18030"):
        read("x.csv", b"".join(lines), encoding="gb18030")


def test_truncated_utf_16(read):
    """UTF-16 that ends within a character is rejected."""
    with pytest.raises(InputError, match=r"x.csv: cannot be read as utf-16 soon after line \d+"):
        read("x.csv", TABLE.encode("utf-16")[:-1])


def test_configured_encoding(read):
    """dataset.encoding is used without detection, unless a byte order mark contradicts it."""
    text = "sentence1,sentence2,label\n花唄,借唄,1\n"
    for encoding in ("gb18030", "big5hkscs", "utf-8"):
        assert read("x.csv", text.encode(encoding), encoding=encoding) == [("花唄", "借唄", "1")]
    with pytest.raises(InputError, match=r"x.csv: begins with the byte order mark of utf-8, but dataset.encoding=gbk"):
        read("x.csv", text.encode("utf-8-sig"), encoding="gbk")


@pytest.mark.parametrize("name", ["base64", "rot13", "utf-9", ""])
def test_unknown_encoding(name):
    """An unknown encoding is rejected."""
    with pytest.raises(InputError, match=r"^dataset.encoding=.*: no such encoding; allowed: auto, utf-8"):
        check_config(compose(["experiment=quickstart", f"dataset.encoding='{name}'"]))


@pytest.mark.parametrize("streaming", [False, True])
def test_encoding_is_reported(tmp_path, streaming):
    """The run and the doctor report an encoding other than UTF-8 once per file."""
    (tmp_path / "train.csv").write_bytes(TABLE.encode("gb18030"))
    (tmp_path / "dev.csv").write_bytes(TABLE.encode("utf-16"))
    (tmp_path / "test.csv").write_bytes(TABLE.encode())
    files = {f"{split}_file": str(tmp_path / f"{split}.csv") for split in ("train", "dev", "test")}
    data = load_dataset(DatasetConfig(**files, streaming=streaming))
    lines = [f"{files['train_file']}: read as GB18030", f"{files['dev_file']}: read as UTF-16"]
    assert [line for line in summary_lines(data, analyze(data)) if "read as" in line] == [
        f"data: {line}" for line in lines
    ]
    assert [finding.text for finding in data_findings(data) if "read as" in finding.text] == lines
    if streaming:
        assert [pair.sentence1 for pair in data.train.read()] == [first for first, _, _ in PAIRS]


@pytest.mark.parametrize(
    "content", [TABLE.encode("big5", "replace"), TABLE.encode() + "花呗,a,1\n".encode("gb18030") * 20]
)
def test_doctor_reports_undecodable_lines_once(tmp_path, content):
    """The doctor reports many undecodable lines as one finding."""
    (tmp_path / "train.csv").write_bytes(content)
    config = compose(["experiment=quickstart"])
    config.dataset = DatasetConfig(train_file=str(tmp_path / "train.csv"), dev_file=str(tmp_path / "train.csv"))
    _, complaints = diagnosed(config)
    result = [finding.text for finding in complaints.findings()]
    assert len(result) == 1, result
    assert "is not valid UTF-8" in result[0]


def test_utf_8_is_read_once():
    """Detection does not read a UTF-8 file twice."""
    reads = []

    class Counted(io.BytesIO):
        def readline(self, size=-1):
            reads.append(size)
            return super().readline(size)

        def peek(self, size=0):
            return self.getvalue()[self.tell() : self.tell() + 512]

    config = DatasetConfig()
    file = DataFile("x", lambda: Counted((JSON * 20).encode()), Format.jsonl)
    assert len(list(read_pairs(file, config, labelled=True))) == 1200
    assert len(reads) < 1210


@pytest.mark.skipif("AFQMC_DATA" not in os.environ, reason="AFQMC_DATA does not name the real data")
@pytest.mark.parametrize("pairs", [10, 100, 4316])
def test_real_sentences(pairs):
    """AFQMC's sentences are detected as GB18030, also in small parts."""
    lines = (Path(os.environ["AFQMC_DATA"]) / "dev.json").read_text(encoding="utf-8").splitlines(keepends=True)
    for start in range(0, len(lines), max(pairs, 400)):
        text = "".join(lines[start : start + pairs])
        assert encoding_of(text, "gb18030") == "gb18030"
        assert encoding_of(text, "utf-8") == "utf-8"
