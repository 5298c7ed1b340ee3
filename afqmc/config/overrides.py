"""Quotes the overrides of a command line for Hydra's grammar, and checks each before Hydra reads them all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from afqmc.config.error_messages import format_hydra_error, schema_fields
from afqmc.config.schema import Config
from afqmc.utils.command_help import PRETRAIN, RUN, groups, options
from afqmc.utils.errors import InputError, elide, first_line
from afqmc.utils.files import is_utf8

_MAX_NAME_BYTES = 250  # of an option; file names are limited to 255 bytes, with the suffix


def validate_overrides(overrides: Iterable[str]) -> None:
    """Check the encoding and grammar of each override, its key, and the name in ``group=option``; skip flags.

    For some of these Hydra raises errors that do not name the override.

    Raises:
        InputError: naming the first override that is invalid.
    """
    parser, group_names, known = OverridesParser.create(), {*groups(), "hydra"}, schema_fields(Config)
    for text in overrides:
        if text.startswith("-") or not ("=" in text or text.startswith("~")):
            continue
        if not is_utf8(text):
            raise InputError(f"{elide(text)}: not valid UTF-8; rename the path, or use a link to it")
        override = _parse(parser, text)
        group = override.key_or_group
        if not group:
            raise InputError(f"{elide(text)}: has no key; write key=value")
        _check_key(elide(text), override, known)
        if (group in group_names or "/" in group) and not override.is_sweep_override() and not override.is_delete():
            _check_choice(elide(text), group, override.value())


def _parse(parser: OverridesParser, text: str) -> Override:
    try:
        return parser.parse_overrides([text])[0]
    except HydraException as error:
        raise InputError(format_hydra_error(error)) from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:  # a number of 5000 digits, 500 brackets
        raise InputError(f"{elide(text)}: cannot be read: {first_line(error)}") from error


def _check_key(text: str, override: Override, known: Mapping[str, Any]) -> None:
    """Reject the deletion of a key of the schema, and keys inside a value that is not a mapping."""
    key = override.key_or_group
    if override.is_delete() and (key in known or key in Config.__dataclass_fields__):
        raise InputError(f"{text}: {key} is part of every run; {key}=... sets it")
    parent = next((name for name in known if key.startswith(f"{name}.")), None)
    if parent is not None and not _is_mapping(known[parent][1]):
        raise InputError(f"{text}: {parent} holds no keys; {parent}=... sets it")


def _is_mapping(kind: Any) -> bool:
    return dict in (get_origin(kind), *map(get_origin, get_args(kind)))


def _check_choice(text: str, group: str, value: Any) -> None:
    """Check that the value of a group can be the name of a file, or is a mapping, which Hydra merges into the group."""
    names = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or all(isinstance(n, str) and len(n.encode()) <= _MAX_NAME_BYTES for n in names):
        return
    if value is None:
        reason = "a run needs one" if group in Config.__dataclass_fields__ else "leave it out for none"
    else:
        reason = "must be a name"
    allowed = ", ".join(options(group))
    raise InputError(f"{text}: {reason}" + (f"; allowed: {allowed}" if allowed else ""))


_PLAIN = re.compile(r"(?:[\w/\-+.$%*@?|:\s]|\\.|\$\{.*?\})*", re.ASCII)  # what Hydra reads without quotes
_NAME = re.compile(r"\s*[A-Za-z_]\w*\s*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
_COSTS = re.compile(r"(?<!['\"])cost:[\w.+-]+,[\w.+-]+")
_PATH_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def quote_overrides(arguments: Iterable[str]) -> list[str]:
    """Quote and check each override of a command line. Flags and their paths are left unchanged.

    Raises:
        InputError: naming the first override that is invalid.
    """
    arguments = list(arguments)
    paths = {index + 1 for index, argument in enumerate(arguments) if argument in _PATH_FLAGS}
    quoted = [argument if index in paths else quote_override(argument) for index, argument in enumerate(arguments)]
    validate_overrides(argument for index, argument in enumerate(quoted) if index not in paths)
    return quoted


def quote_override(override: str) -> str:
    """Quote each element of ``key=value`` that Hydra could not read without quotes; return anything else unchanged.

    Lists, mappings, sweeps (``a,b``) and functions (``choice(a,b)``) keep their meaning; interpolations still resolve.
    """
    key, equals, value = override.partition("=")
    if key.endswith("dataset.checksums") and value.replace(" ", "") == "{}":
        return f"{key}=null"  # Hydra merges mappings, so {} would change nothing
    if not equals or override.startswith("-"):
        return override
    if key.endswith("decision.metric"):  # the comma of cost:1,5 is not that of a sweep
        value = _COSTS.sub(r"'\g<0>'", value)
    quoted = _Quoter(value).quote()
    if quoted != value and quoted.startswith("choice("):  # Hydra drops the quotes inside choice(); a,b means the same
        quoted = quoted.removeprefix("choice(").removesuffix(")")
    return key + equals + quoted


class _Quoter:
    """Quotes a value in one pass.

    Attributes:
        out: Finished pieces.
        element: The element that is being read.
        open: The brackets around it, outermost first.
        in_key: Whether it is the key of a mapping.
    """

    def __init__(self, value: str) -> None:
        self.value = value
        self.out: list[str] = []
        self.element = ""
        self.open: list[str] = []
        self.in_key = False

    def quote(self) -> str:
        """Return the quoted value."""
        position = 0
        while position < len(self.value):
            position += self._consume(self.value[position:])
        self._finish("")
        return "".join(self.out)

    def _consume(self, rest: str) -> int:
        """Read one mark, quotation, interpolation or character, and return its length."""
        length = _token_length(rest, at_start=not self.element.strip())
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


def _token_length(rest: str, at_start: bool) -> int:
    """Return the length of the quotation, interpolation or escape that ``rest`` begins with; 1 for anything else."""
    if at_start and (match := re.match(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", rest)):
        return match.end()
    if rest.startswith("${"):
        depth = 0
        for position, character in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if position and depth == 0:
                return position + 1
    return 2 if rest.startswith("\\") and len(rest) > 1 else 1


def literal(element: str) -> str:
    """Quote one element if Hydra could not read it without quotes."""
    text = element.strip()
    if text[:1] in ("'", '"') or _PLAIN.fullmatch(text):
        return element
    unescaped = _ESCAPED.sub(r"\1", text)
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), unescaped)
    return f"'{escaped}'"


def check_command(arguments: Iterable[str], command: str) -> None:
    """Check that no override of a command line belongs to the other one of ``run`` and ``pretrain``.

    Raises:
        InputError: naming the override.
    """
    for argument in arguments:
        key = argument.lstrip("+").partition("=")[0]
        if command == RUN and key.partition(".")[0] == "masking":
            raise InputError(f"{argument}: only with afqmc.pretrain")
        if command == PRETRAIN and key in ("model.pooling", "model.head"):
            raise InputError(f"{argument}: not with afqmc.pretrain, whose head predicts tokens; set it in fine-tuning")
