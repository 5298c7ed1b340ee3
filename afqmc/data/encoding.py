"""Decode a data file into lines, with its encoding declared or detected with certainty."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

from afqmc.data.compression import first_bytes, raw_lines, text_stream, unreadable
from afqmc.data.sources import DataFile
from afqmc.utils.errors import InputError

RejectLine = Callable[[int, str], None]  # gets the line and the reason

_MARKS = {  # byte order marks, longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
    b"\x84\x31\x95\x33": "gb18030",
}
_ZEROS = (
    "contains zero bytes: a binary file, or UTF-16 without a byte order mark (dataset.encoding=utf-16-le or utf-16-be)"
)
_WIDE = "seems to be UTF-32 without a byte order mark: set dataset.encoding={}"
_LAST_PLANE = 0x10  # of Unicode
_SAMPLED = 1 << 18  # bytes of non-ASCII lines on which the other encodings are tried

# The most frequent characters of modern Chinese. They make up about 60% of the Chinese characters of AFQMC, but only
# 10% of those that appear by chance when text in another encoding is decoded as GB18030.
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都"
    "同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由"
    "问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真"
    "论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空"
    "决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识"
    "候带导争运吗呢吧啊请钱怎"
)
_LATIN = r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]|(?<![^\x00-\x7f])[\x80-\xff](?![^\x00-\x7f])"
_MIN_FREQUENT = 10  # a Chinese text must have at least this many different frequent characters
_MIN_FREQUENT_SHARE = 1 / 3  # of its Chinese characters that must be frequent
_MIN_SCRIPT_SHARE = 0.9  # of the non-ASCII letters that must be in an encoding's own script for it to be plausible


def _is_common(letter: str, codec: str, last: int, first: int = 0xA1) -> bool:
    """Return whether a two-byte encoding has the letter among its common characters, by the range of its first byte."""
    encoded = letter.encode(codec, "ignore")
    return len(encoded) == 2 and first <= encoded[0] <= last


def _is_kana(letter: str) -> bool:
    return "\u3041" <= letter <= "\u30ff" or "\uff66" <= letter <= "\uff9f"


def _in_japanese(letter: str) -> bool:
    return _is_kana(letter) or _is_common(letter, "euc_jp", 0xCF)


def _in_common_chinese(letter: str) -> bool:
    """Return whether GB 2312 has it as punctuation, a full-width letter or one of its 3755 common characters."""
    return _is_common(letter, "gb2312", 0xD7) and not _is_kana(letter)


_LATIN_CODECS = ("cp1252", "cp1250")
_OTHER_CODECS = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874")  # Cyrillic, Greek, Hebrew, Arabic, Thai
_RIVALS: dict[str, Callable[[str], bool]] = {  # other encodings, and whether a letter is in the encoding's own script
    "big5": lambda letter: _is_common(letter, "big5", 0xC6),
    "shift_jis": _in_japanese,
    "euc_jp": _in_japanese,
    "euc_kr": lambda letter: "\uac00" <= letter <= "\ud7a3",
    **dict.fromkeys((*_LATIN_CODECS, *_OTHER_CODECS), str.isalpha),
}
_SUGGESTED = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")  # by the error message, if they can decode the file
_WINDOWS_VARIANTS = {"big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}  # supersets that Windows writes


def text_lines(file: DataFile, encoding: str, reject: RejectLine) -> Iterator[tuple[int, str]]:
    """Return an iterator over the lines of a file with their numbers from 1.

    Args:
        file: The file to read.
        encoding: A Python codec, or ``auto``: UTF-8, the encoding of a byte order mark, or the result of ``detected``.
        reject: Called for a line that cannot be decoded, which is then skipped.

    Raises:
        InputError: if the file is not text, or its encoding is not certain.
    """
    start = first_bytes(file)
    if reason := unreadable(start):
        raise InputError(f"{file.name}:1: {reason}")
    mark, marked = next(((mark, name) for mark, name in _MARKS.items() if start.startswith(mark)), (b"", ""))
    codec = codecs.lookup(encoding if encoding != "auto" else marked or "utf-8").name.removesuffix("-sig")
    if marked and marked != "-".join(codec.split("-")[:2]):
        raise InputError(f"{file.name}: begins with the byte order mark of {marked}, but dataset.encoding={encoding}")
    if b"\0" in start and encoding == "auto" and not marked:
        wide = _utf_32(start)
        raise InputError(f"{file.name}:1: {_WIDE.format(wide) if wide else _ZEROS}")
    if "\n".encode(codec) != b"\n":
        if codec in ("utf-16", "utf-32") and not marked:
            raise InputError(f"{file.name}: has no byte order mark; set dataset.encoding={codec}-le or {codec}-be")
        _note(file, codec)
        lines = enumerate(text_stream(file, codec), 1)
        return ((line, text.removeprefix("\ufeff") if line == 1 else text) for line, text in lines)
    return _decoded(file, codec, mark, detect=encoding == "auto" and not marked, reject=reject)


def _utf_32(start: bytes) -> str:
    """Return the UTF-32 codec of a file without a byte order mark; empty if it is not UTF-32."""
    start = start[: len(start) // 4 * 4]
    for codec, high, plane in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
        if len(start) >= 8 and not any(start[high::4]) and max(start[plane::4]) <= _LAST_PLANE:
            return codec
    return ""


def _decoded(file: DataFile, codec: str, mark: bytes, detect: bool, reject: RejectLine) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file whose line breaks are single bytes.

    With ``detect``, the encoding is detected at the first line that is not ASCII.
    """
    if not detect:
        _note(file, codec)
    for line, raw in enumerate(raw_lines(file, len(mark)), 1):
        if detect and not raw.isascii():
            codec, detect = detected(file), False
            _note(file, codec)
        try:
            yield line, raw.decode(codec)
        except UnicodeDecodeError:
            reject(line, f"is not valid {_title(codec)}: damaged, or from a file in another encoding; fix the line")


def _note(file: DataFile, codec: str) -> None:
    if codec != "utf-8":
        file.note(f"read as {_title(codec)}")


def _title(codec: str) -> str:
    return codec.upper() if codec.startswith(("utf", "gb")) else codec


@lru_cache(maxsize=64)
def detected(file: DataFile) -> str:
    """Detect ``utf-8`` or ``gb18030`` in a file that begins with neither a byte order mark nor zero bytes.

    The file is read until a line settles it. A file that is valid UTF-8 is UTF-8, unless all of it could also be common
    Chinese in GB18030. A file that is not valid UTF-8 is GB18030 if all of it decodes, its characters are typical of
    Chinese prose, and no other common encoding decodes it to text in its own script.

    Raises:
        InputError: if that leaves no encoding or several, or if lines have different encodings.
    """
    sample, size = [], 0
    not_utf8, ambiguous, not_gb18030 = 0, 0, 0  # the first such line, from 1
    for line, raw in enumerate(raw_lines(file), 1):
        if raw.isascii():
            continue
        if _decodes(raw, "utf-8"):
            if not _may_be_chinese(raw):
                if not_utf8:
                    raise InputError(
                        f"{file.name}:{not_utf8}: is not valid UTF-8, but line {line} is; the line is damaged, or the "
                        "file was combined from files in different encodings: fix the line or convert the file"
                    )
                return "utf-8"
            ambiguous = ambiguous or line
        else:
            not_utf8 = not_utf8 or line
            not_gb18030 = not_gb18030 or (0 if _decodes(raw, "gb18030") else line)
        if size < _SAMPLED:
            sample.append(raw)
            size += len(raw)
    if not not_utf8:
        raise InputError(
            f"{file.name}:{ambiguous}: can be read as UTF-8 and as GB18030, and is too short to tell which; "
            "set dataset.encoding=utf-8 or dataset.encoding=gb18030"
        )
    text = b"".join(sample)
    if not not_gb18030 and _is_prose(text.decode("gb18030")) and not any(_is_rival(text, name) for name in _RIVALS):
        return "gb18030"
    readings = [name for name in _SUGGESTED if _decodes(text, name) and not (name == "gb18030" and not_gb18030)]
    readings += _single_byte_codecs(text)
    raise InputError(
        f"{file.name}:{not_utf8}: is not valid UTF-8, and the file's encoding is not certain"
        + (f" (line {not_gb18030} is not valid GB18030)" if not_gb18030 else "")
        + f"; set dataset.encoding: {', '.join([*readings, 'utf-8'])} ..., the last if single lines are damaged"
    )


def _single_byte_codecs(raw: bytes) -> list[str]:
    """Return the single-byte encodings that decode the bytes to letters, those with the fewest capitals first.

    In Latin script, non-ASCII letters stand among ASCII letters. In other scripts, they stand next to each other.
    """
    runs = re.findall(rb"[A-Za-z]?[\x80-\xff]+[A-Za-z]?", raw)
    is_latin = 2 * sum(not (run[0] > 0x7F and run[-1] > 0x7F) for run in runs) >= len(runs)
    names = [name for name in (_LATIN_CODECS if is_latin else _OTHER_CODECS) if _is_letters(raw, name)]
    names.sort(key=lambda name: sum(map(str.isupper, raw.decode(name))))
    return names or [name for name in _LATIN_CODECS[:1] if _decodes(raw, name)]


def _is_letters(raw: bytes, name: str) -> bool:
    """Return whether an encoding decodes the non-ASCII bytes to letters, including vowel signs of Thai and Arabic."""
    if not _decodes(raw, name):
        return False
    letters = [letter for letter in raw.decode(name) if not letter.isascii()]
    return sum(unicodedata.category(letter)[0] in "LM" for letter in letters) >= _MIN_SCRIPT_SHARE * len(letters)


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(_WINDOWS_VARIANTS.get(codec, codec))
    except UnicodeDecodeError:
        return False
    return True


def _may_be_chinese(raw: bytes) -> bool:
    """Return whether a line of valid UTF-8 is also common Chinese in GB18030.

    A non-ASCII letter next to an ASCII one, or a single Latin letter or sign, shows that it is not: ``café``, ``£ 5``.
    """
    if not _decodes(raw, "gb18030") or re.search(_LATIN, raw.decode("utf-8")):
        return False
    return all(letter.isascii() or _in_common_chinese(letter) for letter in raw.decode("gb18030"))


def _is_prose(text: str) -> bool:
    """Return whether the characters are typical of Chinese prose, by the share of frequent ones."""
    letters = [letter for letter in text if not letter.isascii()]
    hanzi = [letter for letter in letters if "\u4e00" <= letter <= "\u9fff"]
    frequent = [letter for letter in hanzi if letter in _FREQUENT]
    unlikely = sum(_is_kana(letter) or "\ue000" <= letter <= "\uf8ff" for letter in letters)
    return (
        len(set(frequent)) >= _MIN_FREQUENT
        and len(frequent) >= _MIN_FREQUENT_SHARE * len(hanzi)
        and unlikely <= (1 - _MIN_SCRIPT_SHARE) * len(letters)
    )


def _is_rival(raw: bytes, name: str) -> bool:
    """Return whether an encoding decodes the bytes to text in its own script."""
    if not _decodes(raw, name):
        return False
    letters = [letter for letter in raw.decode(_WINDOWS_VARIANTS.get(name, name)) if not letter.isascii()]
    return sum(map(_RIVALS[name], letters)) >= _MIN_SCRIPT_SHARE * len(letters)
