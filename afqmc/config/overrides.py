"""Overrides, each read by itself before Hydra reads them all: it would stop at some of them without a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from afqmc.config.error_messages import format_hydra_error, schema_fields
from afqmc.config.help import groups, options
from afqmc.config.schema import Config
from afqmc.utils.errors import InputError, elide, first_line
from afqmc.utils.files import is_utf8

_LONGEST = 250  # bytes of an option: with its suffix no file has a name of more than 255


def validate_overrides(overrides: Iterable[str]) -> None:
    """Hold each override to UTF-8 and the grammar, its key to what holds keys, ``group=option`` to a name; skip flags.

    Raises:
        InputError: naming the first that is wrong.
    """
    parser, names, known = OverridesParser.create(), {*groups(), "hydra"}, schema_fields(Config)
    for override in overrides:
        if override.startswith("-") or not ("=" in override or override.startswith("~")):
            continue
        if not is_utf8(override):
            raise InputError(f"{elide(override)}: holds bytes that are no UTF-8; a path needs another name, or a link")
        found = _read(parser, override)
        group = found.key_or_group
        if not group:
            raise InputError(f"{elide(override)}: has no key; it is key=value")
        _hold_to_a_key(elide(override), found, known)
        if (group in names or "/" in group) and not found.is_sweep_override() and not found.is_delete():
            _hold_to_a_name(elide(override), group, found.value())


def _read(parser: OverridesParser, override: str) -> Override:
    try:
        return parser.parse_overrides([override])[0]
    except HydraException as error:
        raise InputError(format_hydra_error(error)) from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:  # a number of 5000 digits, 500 brackets
        raise InputError(f"{elide(override)}: cannot be read: {first_line(error)}") from error


def _hold_to_a_key(override: str, found: Override, known: dict[str, Any]) -> None:
    """A key of the schema is set as a whole, and stays there; only mappings have keys of their own."""
    key = found.key_or_group
    if found.is_delete() and (key in known or key in Config.__dataclass_fields__):
        raise InputError(f"{override}: {key} is part of every run; {key}=... sets it")
    above = next((name for name in known if key.startswith(f"{name}.")), None)
    if above is not None and not _is_mapping(known[above][1]):
        raise InputError(f"{override}: {above} holds no keys; {above}=... sets it")


def _is_mapping(kind: Any) -> bool:
    return dict in (get_origin(kind), *map(get_origin, get_args(kind)))


def _hold_to_a_name(override: str, group: str, value: Any) -> None:
    """Hydra takes the key of a group for a choice among its files; but a mapping goes into the group."""
    named = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or all(isinstance(name, str) and len(name.encode()) <= _LONGEST for name in named):
        return
    if value is None:
        wanted = "a run needs one" if group in Config.__dataclass_fields__ else "leave it out for none"
    else:
        wanted = "must be a name"
    legal = ", ".join(options(group))
    raise InputError(f"{override}: {wanted}" + (f"; legal: {legal}" if legal else ""))


_PLAIN = re.compile(r"(?:[\w/\-+.$%*@?|:\s]|\\.|\$\{.*?\})*", re.ASCII)  # what Hydra reads without quotes
_NAME = re.compile(r"\s*[A-Za-z_]\w*\s*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
_TAKE_A_PATH = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def quote_overrides(arguments: Iterable[str]) -> list[str]:
    """Quote each override of a command line, and check that Hydra can read it; paths that flags take stay as they are.

    Raises:
        InputError: naming the first that is not.
    """
    given = list(arguments)
    paths = {place + 1 for place, argument in enumerate(given) if argument in _TAKE_A_PATH}
    found = [argument if place in paths else quote_override(argument) for place, argument in enumerate(given)]
    validate_overrides(argument for place, argument in enumerate(found) if place not in paths)
    return found


def quote_override(override: str) -> str:
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
