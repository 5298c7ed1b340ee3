"""Overrides, each read by itself before Hydra reads them all: it would stop at some of them without a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from afqmc.config.messages import explain, leaves
from afqmc.config.schema import Config
from afqmc.errors import InputError, first_line, in_brief
from afqmc.groups import groups, options
from afqmc.paths import is_utf8

_LONGEST = 250  # bytes of an option: with its suffix no file has a name of more than 255


def refuse_unreadable(overrides: Iterable[str]) -> None:
    """Hold each override to UTF-8 and the grammar, its key to what holds keys, ``group=option`` to a name; skip flags.

    Raises:
        InputError: naming the first that is wrong.
    """
    parser, names, known = OverridesParser.create(), {*groups(), "hydra"}, leaves(Config)
    for override in overrides:
        if override.startswith("-") or not ("=" in override or override.startswith("~")):
            continue
        if not is_utf8(override):
            raise InputError(
                f"{in_brief(override)}: holds bytes that are no UTF-8; a path needs another name, or a link"
            )
        found = _read(parser, override)
        group = found.key_or_group
        if not group:
            raise InputError(f"{in_brief(override)}: has no key; it is key=value")
        _hold_to_a_key(in_brief(override), found, known)
        if (group in names or "/" in group) and not found.is_sweep_override() and not found.is_delete():
            _hold_to_a_name(in_brief(override), group, found.value())


def _read(parser: OverridesParser, override: str) -> Override:
    try:
        return parser.parse_overrides([override])[0]
    except HydraException as error:
        raise InputError(explain(error)) from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:  # a number of 5000 digits, 500 brackets
        raise InputError(f"{in_brief(override)}: cannot be read: {first_line(error)}") from error


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
