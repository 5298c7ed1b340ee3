"""The language of the terminal, and the Chinese texts for it.

The code writes plain English: f-strings in errors, ``%`` templates in log calls. A text is translated when it is
printed. ``str(error)``, log files and JSON stay English. ``chinese.json`` maps each English template to a Chinese one
with the same placeholders; a printed text is matched against the templates to find its values.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache, lru_cache, reduce
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from afqmc.utils.errors import InputError

_VARIABLE = "AFQMC_LANG"
_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides
_MIN_LETTERS = 3  # outside of the placeholders; templates with fewer would match texts of the user
_FEW_LETTERS = 5  # with these, a value at the beginning must be a number
_MAX_CUTS = 24  # parts of a message that is not in the catalogue as a whole
_BOUNDARY = re.compile(r"(?=: |; |, | \(|\)$|\n)|(?<=: )|(?<=; )|(?<=, )|(?<= \()|(?<=\n)|(?<=\?)(?= )")


def language() -> str:
    """Return ``en`` or ``zh``: AFQMC_LANG decides, then the locale. Anything but Chinese is English."""
    name = os.environ.get(_VARIABLE) or next(filter(None, map(os.environ.get, _LOCALE_VARIABLES)), "")
    return "zh" if re.match(r"zh(?![a-z])", name.lower()) else "en"


def check_language() -> None:
    """Check AFQMC_LANG.

    Raises:
        InputError: for a language without texts.
    """
    name = os.environ.get(_VARIABLE, "")
    if name and not re.match(r"(en|zh)(?![a-z])", name.lower()):
        raise InputError(f"{_VARIABLE}={name}: allowed: en, zh; or unset it to follow the locale")


class Message(str):
    """A formatted English message, with its template and the values inserted."""

    template: str
    values: dict[str, Any]


def msg(template: str, /, **values: Any) -> Message:
    """Return ``template.format(**values)``, for texts that are too short to be matched."""
    text = Message(template.format(**values))
    text.template, text.values = template, values
    return text


def message_of(error: BaseException) -> str:
    """Return the message of an error; it keeps its template if it was made by ``msg``."""
    message = error.args[0] if error.args else None
    return message if isinstance(message, Message) else str(error)


def join_messages(messages: Sequence[str]) -> str:
    """Join messages by commas; each stays translatable."""
    return reduce(lambda left, right: msg("{one}, {other}", one=left, other=right), messages)


def translate(text: str) -> str:
    """Return a text of the program in the language of the terminal."""
    return text if language() == "en" else chinese(text)


def translate_log(template: str, arguments: Any) -> str:
    """Return a log message with its arguments, in the language of the terminal."""
    known = catalogue()["messages"].get(template) if language() == "zh" else None
    if known is None or not isinstance(arguments, tuple):
        return translate(template % arguments if arguments else template)
    # a value that fills the whole of "%s" is translated too; numbers are formatted as in English
    return known % tuple(
        value if isinstance(value, int | float) else chinese(str(value), words=False) for value in arguments
    )


def chinese(text: str, words: bool = True) -> str:
    """Return the Chinese text of a message or of a word of the program; any other text is returned unchanged.

    Args:
        text: English text. Values that are messages themselves are translated too.
        words: Whether the text may be a single word. False for values, which may be a user's own.
    """
    if isinstance(text, Message):
        values = {
            name: chinese(value, words=False) if isinstance(value, str) else value
            for name, value in text.values.items()
        }
        return _known(text.template).format(**values)
    texts = catalogue()
    if words and (known := texts["messages"].get(text) or texts["words"].get(text) or texts["page"].get(text)):
        return known
    return _match(str(text)).text


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return the texts by section: messages, words and parts of messages, of the help, of the HTML page."""
    sections: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("chinese.json").read_text("utf-8"))
    return sections


def _known(template: str) -> str:
    texts = catalogue()
    return texts["messages"].get(template) or texts["page"][template]


class _Template(NamedTuple):
    """A template, divided at its placeholders: one constant part more than there are names."""

    parts: list[str]
    names: list[str]
    chinese: str
    letters: int

    def values(self, text: str) -> dict[str, str] | None:
        """Return the values with which the template gives this text; None if there are none."""
        first, *others = self.parts
        if not text.startswith(first):
            return None
        if not others:
            return {} if text == first else None
        end = len(text) - len(others[-1])
        if not text.endswith(others[-1]):
            return None
        values: dict[str, str] = {}
        start = len(first)
        for name, part in zip(self.names, others, strict=True):
            stop = end if part is others[-1] else text.find(part, start, end)
            if stop < start or values.setdefault(name, text[start:stop]) != text[start:stop]:
                return None
            start = stop + len(part)
        if (
            not first
            and others[0][:1] == " "
            and self.letters <= _FEW_LETTERS
            and re.search("[A-Za-z]", values[self.names[0]])
        ):
            return None  # as "3 pairs", but not "my pairs"
        return values


@cache
def _templates() -> list[_Template]:
    """Return all templates with enough constant text."""
    texts = catalogue()
    templates = []
    for english, translation in (texts["messages"] | texts["words"] | texts["help"]).items():
        fields = list(Formatter().parse(english))
        parts, names = [""], []
        for constant, name, _, _ in fields:
            parts[-1] += constant
            if name is not None:
                names.append(name)
                parts.append("")
        letters = len(re.findall(r"[A-Za-z]", "".join(parts)))
        if letters >= _MIN_LETTERS and (" " in english or names):
            templates.append(_Template(parts, names, translation, letters))
    return templates


def _fill(template: str, values: dict[str, str]) -> str:
    """Fill a template with texts; format specs belong to numbers, and are ignored."""
    return "".join(
        constant + ("" if name is None else values[name]) for constant, name, _, _ in Formatter().parse(template)
    )


class _Match(NamedTuple):
    """A translation. ``score`` is the number of characters that belong to templates; the rest is values."""

    score: int
    text: str


@lru_cache(maxsize=4000)
def _match(text: str) -> _Match:
    """Translate a message, or the parts of a message, such as a file name, a reason and a hint."""
    stripped = text.strip()
    if re.fullmatch(r"""('|").*\1""", stripped) or not re.search("[A-Za-z]{2}", text):
        return _Match(0, text)  # a quoted value, or no words
    matches = [_match_whole(text), _match_parts(text)]  # the first one if they are equal: a value may be a list
    if stripped != text:
        score, translated = _match(stripped)
        matches.append(_Match(score, text.replace(stripped, translated, 1)))
    return max(matches, key=lambda match: match.score)


@lru_cache(maxsize=4000)
def _match_whole(text: str) -> _Match:
    """Translate a text that is one message, by the template that fits best; any other text is returned unchanged."""
    best = _Match(0, text)
    for template in _templates():
        if (values := template.values(text)) is not None:
            matches = {name: _match(value) for name, value in values.items()}
            score = sum(map(len, template.parts)) + sum(match.score for match in matches.values())
            if score > best.score:
                best = _Match(score, _fill(template.chinese, {name: match.text for name, match in matches.items()}))
    return best


def _match_parts(text: str) -> _Match:
    """Divide a text at punctuation into messages and other parts, so that most of it is translated."""
    cuts = sorted({0, len(text), *[match.start() for match in _BOUNDARY.finditer(text)][:_MAX_CUTS]})
    best = [_Match(0, "")]  # of the text before each cut
    for stop in range(1, len(cuts)):
        options = []
        for start in range(stop):
            part = text[cuts[start] : cuts[stop]]
            score, translated = _Match(0, part) if part == text else _match_whole(part)
            options.append(_Match(best[start].score + score, best[start].text + translated))
        best.append(max(options, key=lambda match: match.score))
    return best[-1]
