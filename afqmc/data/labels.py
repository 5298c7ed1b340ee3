"""Names of labels: how a value becomes a name, which names look alike, and what may be meant by an unknown one."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Iterable

from afqmc.utils.errors import elide

NO_LABEL = "-1"  # GLUE and CLUE write it in each row of a test file without labels

_IGNORED = {"Cf", "Cc", "Zs", "Zl", "Zp"}  # categories: invisible characters and spaces
# invisible too, in other categories: joiners, fillers of Hangul, Braille blank, variation selectors
_INVISIBLE = {0x34F, 0x115F, 0x1160, 0x2800, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
# Cyrillic and Greek letters, dashes and quotes in the shape of Latin ones, and letters in the shape of digits
_SHAPES = str.maketrans("аеорсухіјѕԁһвнкмтԝзοαρικυχτβεζν−_’‘ol〇", "aeopcyxijsdhbhkmtw30apikuxtbezv--''010") | {
    ord("о"): "0"
}
_ALONE = str.maketrans("I|一ー", "11--")  # that look like a digit or a dash where they are the whole name
_CAPITALS = str.maketrans("ΜΝΥϹ", "MNYC")  # Greek ones whose small letters look like others; alone or beside Latin ones
_QUOTES = "\"'“”„«»「」『』"  # around a name
_SHOWN = 12  # code points of a name

_YAML_BOOLEANS = {"true": ("yes", "on"), "false": ("no", "off")}


def label_name(value: str | int | bool) -> str:
    """A label as its name: ``1`` and ``"1 "`` are ``"1"``, ``true`` and ``"True"`` are ``"true"``."""
    name = str(value).strip()
    return name.lower() if name in ("True", "False") else name


def appearance(name: str) -> str:
    """The same text for names that look alike or differ only in case, spaces or the way a number is written."""
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
    """The names that look alike, in groups of two or more."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(appearance(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def code_points(name: str) -> str:
    """A name with its code points: ``'1' (U+0031)``."""
    points = [f"U+{ord(letter):04X}" for letter in name[:_SHOWN]]
    return f"{elide(name)!r} ({' '.join(points)}{' ...' if len(name) > _SHOWN else ''})"


def unknown_label(name: str, known: Iterable[str]) -> str:
    """The message for a label outside the set, with what may be meant."""
    names = list(known)
    message = f"label {name!r} is not one of: {elide(', '.join(names))} (dataset.labels sets them)"
    if alike := [other for other in names if appearance(other) == appearance(name)]:
        return f"{message}; it looks like one of them: {code_points(name)} here, {code_points(alike[0])} there"
    if any(name.lower() in _YAML_BOOLEANS.get(other, ()) for other in names):
        return f'{message}; YAML reads {name} without quotes as true or false: write labels: ["no", "yes"]'
    if (number := _number_of_yaml(name)) in names:
        return f'{message}; YAML reads {name} without quotes as the number {number}: write "{name}"'
    if name == NO_LABEL:
        return f"{message}; {NO_LABEL} in every row of a file stands for no label: predict such pairs"
    return message


def _number_of_yaml(name: str) -> str | None:
    """The number that YAML reads in place of a name such as 010 (octal), 0x1F, 1_000 or 12:30 (to base 60)."""
    plain = name.replace("_", "")
    if re.fullmatch(r"0[0-7]+", plain):
        return str(int(plain, 8))
    if re.fullmatch(r"0x[0-9a-fA-F]+|0b[01]+", plain):
        return str(int(plain, 0))
    if re.fullmatch(r"[1-9]\d*(:[0-5]?\d)+", plain):
        number = 0
        for part in plain.split(":"):
            number = number * 60 + int(part)
        return str(number)
    return plain if plain != name and plain.isdecimal() else None
