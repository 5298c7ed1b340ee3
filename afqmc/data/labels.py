"""Label names: convert values to names, find names that look alike, and explain unknown labels."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Iterable

from afqmc.utils.errors import elide

NO_LABEL = "-1"  # written by GLUE and CLUE in every row of an unlabelled test file

_IGNORED = {"Cf", "Cc", "Zs", "Zl", "Zp"}  # categories: invisible characters and spaces
# invisible characters of other categories: joiners, Hangul fillers, Braille blank, variation selectors
_INVISIBLE = {0x34F, 0x115F, 0x1160, 0x2800, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
# Cyrillic and Greek letters, dashes and quotes that look like Latin ones, and letters that look like digits
_SHAPES = str.maketrans("аеорсухіјѕԁһвнкмтԝзοαρικυχτβεζν−_’‘ol〇", "aeopcyxijsdhbhkmtw30apikuxtbezv--''010") | {
    ord("о"): "0"
}
_ALONE = str.maketrans("I|一ー", "11--")  # these look like a digit or a dash if they are the whole name
# Greek capitals whose lower-case letters look different; replaced if alone or mixed with Latin letters
_CAPITALS = str.maketrans("ΜΝΥϹ", "MNYC")
_QUOTES = "\"'“”„«»「」『』"
_SHOWN = 12  # code points shown per name

_YAML_BOOLEANS = {"true": ("yes", "on"), "false": ("no", "off")}


def label_name(value: str | int | bool) -> str:
    """Return the name of a label: ``1`` and ``"1 "`` become ``"1"``, ``true`` and ``"True"`` become ``"true"``."""
    name = str(value).strip()
    return name.lower() if name in ("True", "False") else name


def appearance(name: str) -> str:
    """Return the same text for names that look alike or differ only in case, spaces or the notation of a number."""
    text = name.strip(_QUOTES + string.whitespace) or name
    if len(text) == 1 or re.search("[A-Za-z]", text):
        text = text.translate(_CAPITALS)
    text = text.translate(_ALONE) if len(text) == 1 else text
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = (letter for letter in text if unicodedata.category(letter) not in _IGNORED)
    text = "".join("-" if unicodedata.category(letter) == "Pd" else letter for letter in visible)
    text = "".join(letter for letter in text.translate(_SHAPES) if ord(letter) not in _INVISIBLE)
    try:
        return repr(float(text)) if math.isfinite(float(text)) else text
    except ValueError:
        return text


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of two or more names that look alike."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(appearance(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def code_points(name: str) -> str:
    """Return a name with its code points, such as ``'1' (U+0031)``."""
    points = [f"U+{ord(letter):04X}" for letter in name[:_SHOWN]]
    return f"{elide(name)!r} ({' '.join(points)}{' ...' if len(name) > _SHOWN else ''})"


def unknown_label(name: str, valid: Iterable[str]) -> str:
    """Return the message for an invalid label, with a hint if its cause is likely."""
    names = list(valid)
    shown = elide(", ".join(names))
    message = f"label {name!r} is not one of: {shown} (dataset.labels sets them; a finished run keeps its own)"
    if alike := [label for label in names if appearance(label) == appearance(name)]:
        return f"{message}; it looks like one of them: {code_points(name)} here, {code_points(alike[0])} there"
    if any(name.lower() in _YAML_BOOLEANS.get(label, ()) for label in names):
        return f'{message}; YAML reads {name} without quotes as true or false: write labels: ["no", "yes"]'
    if (number := _yaml_number(name)) in names:
        return f'{message}; YAML reads {name} without quotes as the number {number}: write "{name}"'
    if name == NO_LABEL:
        return f"{message}; {NO_LABEL} in every row of a file means no label: predict such pairs"
    return message


def _yaml_number(name: str) -> str | None:
    """Return the number as which YAML 1.1 reads a name such as 010 (octal), 0x1F, 1_000 or 12:30 (base 60)."""
    digits = name.replace("_", "")
    if re.fullmatch(r"0[0-7]+", digits):
        return str(int(digits, 8))
    if re.fullmatch(r"0x[0-9a-fA-F]+|0b[01]+", digits):
        return str(int(digits, 0))
    if re.fullmatch(r"[1-9]\d*(:[0-5]?\d)+", digits):
        number = 0
        for sexagesimal in digits.split(":"):
            number = number * 60 + int(sexagesimal)
        return str(number)
    return digits if digits != name and digits.isdecimal() else None
