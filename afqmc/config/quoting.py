"""Values as people type them, in the quotes that Hydra wants: ``dataset.path=/数据`` or ``tracker.name=a&b``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from afqmc.config.overrides import refuse_unreadable

_PLAIN = re.compile(r"(?:[\w/\-+.$%*@?|:\s]|\\.|\$\{.*?\})*", re.ASCII)  # what Hydra reads without quotes
_NAME = re.compile(r"\s*[A-Za-z_]\w*\s*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
_TAKE_A_PATH = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def quoted_all(arguments: Iterable[str]) -> list[str]:
    """``quoted`` for each argument of a command line, and each readable; the paths that flags take stay as they are.

    Raises:
        InputError: naming the first that is not.
    """
    given = list(arguments)
    paths = {place + 1 for place, argument in enumerate(given) if argument in _TAKE_A_PATH}
    found = [argument if place in paths else quoted(argument) for place, argument in enumerate(given)]
    refuse_unreadable(argument for place, argument in enumerate(found) if place not in paths)
    return found


def quoted(override: str) -> str:
    """``key=value`` with quotes round each element that Hydra could not read without; anything else as it is.

    Lists, mappings, sweeps (``a,b``) and functions (``choice(a,b)``) keep their marks; interpolations still resolve.
    """
    key, equals, value = override.partition("=")
    if key.endswith("dataset.checksums") and value.replace(" ", "") == "{}":
        return f"{key}=null"  # Hydra merges a mapping into the one there is: {} would change nothing
    if not equals or override.startswith("-"):
        return override
    found = _Quoting(value).done()
    if found != value and found.startswith("choice("):  # Hydra forgets the quotes inside it; a,b means the same
        found = found.removeprefix("choice(").removesuffix(")")
    return key + equals + found


class _Quoting:
    """One pass over a value: ``out`` is finished, ``element`` is being read, ``open`` are the brackets round it."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.out: list[str] = []
        self.element = ""
        self.open: list[str] = []
        self.in_key = False  # of a mapping

    def done(self) -> str:
        """The value, quoted."""
        position = 0
        while position < len(self.value):
            position += self._take(self.value[position:])
        self._finish("")
        return "".join(self.out)

    def _take(self, rest: str) -> int:
        """Read one mark, quotation, interpolation or character; how long it is."""
        length = _whole(rest, at_start=not self.element.strip())
        if length > 1:
            self.element += rest[:length]
        elif self._is_mark(rest[0]):
            self._finish(rest[0])
        else:
            self.element += rest[0]
        return length

    def _is_mark(self, character: str) -> bool:
        inside = self.open[-1] if self.open else ""
        if character in "[{":
            return not self.element.strip()
        if character == "(":
            return bool(_NAME.fullmatch(self.element))
        if character in "]})":
            return bool(inside) and _CLOSING[inside] == character
        if character == ":":
            return self.in_key
        return character == "," or (character == "=" and inside == "(" and bool(_NAME.fullmatch(self.element)))

    def _finish(self, mark: str) -> None:
        self.out.append(self.element if self.in_key or mark == "(" else literal(self.element))
        self.out.append(mark)
        self.element = ""
        if mark in _CLOSING:
            self.open.append(mark)
        elif mark in ("]", "}", ")"):
            self.open.pop()
        inside = self.open[-1] if self.open else ""
        self.in_key = inside == "{" and mark in ("{", ",")


def _whole(rest: str, at_start: bool) -> int:
    """The length of what is one piece here: a quotation, an interpolation, an escaped character; 1 for any other."""
    if at_start and (found := re.match(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", rest)):
        return found.end()
    if rest.startswith("${"):
        depth = 0
        for position, character in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if position and depth == 0:
                return position + 1
    return 2 if rest.startswith("\\") and len(rest) > 1 else 1


def literal(element: str) -> str:
    """One element in quotes where Hydra could not read it without."""
    text = element.strip()
    if text[:1] in ("'", '"') or _PLAIN.fullmatch(text):
        return element
    plain = _ESCAPED.sub(r"\1", text)
    plain = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), plain)
    return f"'{plain}'"
