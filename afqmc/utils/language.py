"""The language of the terminal, and the Chinese texts for it.

The code writes plain English: f-strings in errors, ``%`` templates in log calls. A text is translated when it is
printed. ``str(error)``, log files and JSON stay English. ``chinese.json`` maps each English template to a Chinese one
with the same placeholders; a printed text is matched against the templates to find its values.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, reduce
from importlib import resources
from string import Formatter
from typing import Any, NamedTuple

from afqmc.utils.errors import InputError

_VARIABLE = "AFQMC_LANG"
_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides
_MIN_LETTERS = 3  # outside of the placeholders; templates with fewer would match texts of the user
_MAX_CUTS = 40  # parts of a message that is not in the catalogue as a whole
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
    return _match_message(str(text))


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return the texts by section: messages, words and parts of messages, of the help, of the HTML page."""
    path = resources.files("afqmc.utils").joinpath("chinese.json")
    sections: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return sections


def _known(template: str) -> str:
    texts = catalogue()
    return texts["messages"].get(template) or texts["page"][template]


class _Template(NamedTuple):
    """A template, divided at its placeholders: one constant part more than there are names."""

    parts: list[str]
    names: list[str]
    chinese: str

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
        return values


@cache
def _templates() -> list[_Template]:
    """Return all templates with enough constant text, the most specific first."""
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
        if len(re.findall(r"[A-Za-z]", "".join(parts))) >= _MIN_LETTERS and (" " in english or names):
            templates.append(_Template(parts, names, translation))
    return sorted(templates, key=lambda template: -sum(map(len, template.parts)))


def _fill(template: str, value_of: Callable[[str], str]) -> str:
    """Fill a template with texts; format specs belong to numbers, and are ignored."""
    return "".join(
        constant + ("" if name is None else value_of(name)) for constant, name, _, _ in Formatter().parse(template)
    )


def _match_whole(text: str) -> str | None:
    """Return the translation of a text that is one message; None if it is not."""
    for template in _templates():
        values = template.values(text)
        if values is not None:
            return _fill(template.chinese, lambda name, values=values: _match_message(values[name]))  # type: ignore[misc]
    return None


@lru_cache(maxsize=1000)
def _match_message(text: str) -> str:
    """Translate a message, or else the messages that it consists of: the longest first, from left to right."""
    if re.fullmatch(r"""('|").*\1""", text) or not re.search("[A-Za-z]{2}", text):
        return text  # a quoted value, or no words
    if (whole := _match_whole(text)) is not None:
        return whole
    cuts = [0, *(match.start() for match in _BOUNDARY.finditer(text) if 0 < match.start() < len(text)), len(text)]
    cuts = sorted(set(cuts))[:_MAX_CUTS]
    start, translated = 0, ""
    while start < len(cuts) - 1:
        for stop in range(len(cuts) - 1, start, -1):
            if (start, stop) == (0, len(cuts) - 1) and cuts[stop] == len(text):
                continue
            part = _match_whole(text[cuts[start] : cuts[stop]])
            if part is not None:
                break
        else:
            stop, part = start + 1, text[cuts[start] : cuts[start + 1]]
        translated += part
        start = stop
    return translated + text[cuts[-1] :]
