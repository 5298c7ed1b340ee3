"""Checks of the YAML files that a command names, before Hydra reads them: every message has the file and the line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from afqmc.config.error_messages import format_hydra_error, schema_fields, unknown_key
from afqmc.config.help import conf_dir, groups, options
from afqmc.config.schema import Config
from afqmc.utils.errors import InputError, did_you_mean, elide

_GROUPS = Config.__dataclass_fields__  # and the keys at the top
_Node = Any  # of yaml: it has no types


def check_files(overrides: Iterable[str], directories: Sequence[Path] = ()) -> None:
    """Check the files that ``group=option`` overrides name, and those that these name in turn.

    Args:
        overrides: Of the command line; flags and other keys are skipped.
        directories: Of the user, beside the packaged one.

    Raises:
        InputError: ``file:line: what was found; what is legal``.
    """
    files = _Files([Path(conf_dir()), *directories])
    for override in overrides:
        group, _, names = override.lstrip("+").partition("=")
        for name in names.split(","):
            files.check(group, name)


@dataclass
class _Files:
    """The directories that hold config files, and which of the files were checked."""

    directories: list[Path]
    checked: set[Path] = field(default_factory=set)

    def check(self, group: str, name: str) -> None:
        """Check one option of a group, if there is a file of that name."""
        try:
            paths = [directory / group / f"{name}.yaml" for directory in self.directories] if group and name else []
            path = next((path for path in paths if path.is_file()), None)
        except (OSError, ValueError):  # a name that is too long for a file
            return
        if path is None or path in self.checked or group.startswith("hydra"):
            return
        self.checked.add(path)
        text, root = _parsed(path)
        prefix = _package(path, text, group)
        if root is not None and prefix is not None:
            for key, value in _items(path, root):
                if key.value == "defaults":
                    self._check_defaults(path, group, value)
                elif prefix or key.value != "hydra":
                    _check_key(path, prefix, key, value)

    def _check_defaults(self, path: Path, group: str, entries: _Node) -> None:
        if not isinstance(entries, yaml.SequenceNode):
            raise InputError(f"{_line(path, entries)}: defaults must be a list: `- override /model: mini`")
        others = ""
        for entry in entries.value:
            where = _line(path, entry)
            if isinstance(entry, yaml.ScalarNode):
                if entry.value.startswith("override") or ": " in entry.value:
                    raise InputError(
                        f"{where}: {entry.value}: needs a colon and no quotes, as in `- override /model: mini`"
                    )
                if entry.value != "_self_":
                    others = entry.value
                    self.check(*_option(entry.value, group))
                continue
            if not isinstance(entry, yaml.MappingNode) or len(entry.value) != 1:
                raise InputError(f"{where}: each entry of defaults is one name or one `group: option`")
            is_override = self._check_choice(where, group, *entry.value[0])
            if is_override and others:
                raise InputError(f"{where}: an override stands after {others!r}; overrides come last in defaults")
            others = others if is_override else entry.value[0][0].value

    def _check_choice(self, where: str, group: str, key: _Node, value: _Node) -> bool:
        """``override /group: option``; returns whether it is an override."""
        *words, target = key.value.split() or [""]
        option = value.value if isinstance(value, yaml.ScalarNode) else "OPTION"
        name = target.partition("@")[0].lstrip("/")
        known = groups(self.directories)
        if name not in known and not name.startswith("hydra/"):
            raise InputError(f"{where}: {key.value}: no such group{did_you_mean(name, known)}")
        if (name in _GROUPS or name in ("experiment", "debug")) and ("override" not in words or target[0] != "/"):
            raise InputError(
                f"{where}: {key.value}: {option}: config.yaml has a {name}, so write `- override /{name}: {option}`"
            )
        if isinstance(value, yaml.SequenceNode) and name in _GROUPS:
            raise InputError(f"{where}: {key.value}: one option is needed, found {len(value.value)}")
        if isinstance(value, yaml.ScalarNode) and value.tag.endswith(":bool"):
            raise InputError(f'{where}: {key.value}: {_reads(value)}; write "{option}"')
        self.check(name, option)
        return "override" in words


def _option(entry: str, group: str) -> tuple[str, str]:
    """The group and name of a file that ``defaults`` names: ``/group/name``, or another one of the same group."""
    above, _, name = entry.rpartition("/")
    return (above.lstrip("/") if entry.startswith("/") else "/".join(filter(None, (group, above)))), name


def _parsed(path: Path) -> tuple[str, _Node]:
    """The text and the root node, None for an empty file."""
    try:
        text = path.read_bytes().decode("utf-8")
        root = yaml.compose(text, Loader=get_yaml_loader())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        reason = str(getattr(error, "problem", None) or error)
        reason = "a tab; YAML is indented with spaces" if "'\\t'" in reason else f"not valid YAML: {reason}"
        raise InputError(f"{path}{line}: {elide(reason)}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deep") from error
    if text.startswith("\ufeff"):
        raise InputError(f"{path}:1: begins with a byte order mark (U+FEFF); save it as UTF-8 without one")
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise InputError(f"{_line(path, root)}: must be a mapping, as in `lr: 1e-3`")
    return text, root


def _package(path: Path, text: str, group: str) -> str | None:
    """Where the keys of a file belong: ``""`` for the whole config, ``dataset.``; None for where nothing is known."""
    try:
        package = ConfigSource._get_header_dict(text[:512]).get("package")
    except ValueError as error:
        raise InputError(f"{path}:1: {error}; the first line is `# @package _global_`") from error
    if package == "_global_":
        return ""
    if group in ("experiment", "debug", "sweep") and package not in _GROUPS:
        raise InputError(
            f"{path}:1: the first line must be `# @package _global_`: without it, lr in this file is {group}.lr"
        )
    section = package or group
    return f"{section}." if section in _GROUPS else None


def _check_key(path: Path, prefix: str, key: _Node, value: _Node) -> None:
    """A key with its value, or all keys of a section."""
    name, where, known = f"{prefix}{key.value}", _line(path, key), _leaves()
    if key.value == "<<":  # a mapping that is merged into this one
        return
    if "." in key.value:
        above, _, last = key.value.rpartition(".")
        raise InputError(f"{where}: {key.value}: a dot has no meaning in YAML; write {last} below {above}:")
    if name in known:
        _check_value(_line(path, value), name, known[name][1], value)
        return
    if any(name.startswith(f"{leaf}.") for leaf in known):  # an argument of an optimizer, which its signature knows
        return
    section = [leaf for leaf in known if leaf.startswith(f"{name}.")]
    if not section:
        siblings = {leaf.removeprefix(prefix).partition(".")[0] for leaf in known if leaf.startswith(prefix)}
        raise InputError(f"{where}: {unknown_key(name, siblings)}")
    if not isinstance(value, yaml.MappingNode):
        if isinstance(value, yaml.ScalarNode) and value.value in options(name):
            raise InputError(f"{where}: {name}: {value.value}: write `- override /{name}: {value.value}` in defaults")
        raise InputError(f"{where}: {name}: must hold keys, indented on the lines below; leave it out for none")
    for below, content in _items(path, value):
        _check_key(path, f"{name}.", below, content)


@cache
def _leaves() -> dict[str, Any]:
    return schema_fields(Config)


def _check_value(where: str, key: str, kind: Any, node: _Node) -> None:
    """A value that YAML reads as something else, or that has the wrong type."""
    kinds = (kind, *get_args(kind), *(inner for part in get_args(kind) for inner in get_args(part)))
    scalars = node.value if isinstance(node, yaml.SequenceNode) else [node]
    is_text = any(part is str or (isinstance(part, type) and issubclass(part, Enum)) for part in kinds)
    for scalar in scalars:
        if isinstance(scalar, yaml.ScalarNode) and _is_misread(scalar, is_text, scalar is not node):
            fix = f'write "{scalar.value}"' if is_text else "write the number that is meant"
            raise InputError(f"{where}: {key}: {_reads(scalar)}; {fix}")
    value = _constructed(node)
    if "${" in str(value) or value == "???":
        return
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, value)
    except OmegaConfBaseException as error:
        raw = node.value if isinstance(node, yaml.ScalarNode) else value
        told = format_hydra_error(error).removeprefix(f"{key}: ")
        raise InputError(f"{where}: {key}: {elide(str(raw)) or 'empty'}: {told}") from error


def _is_misread(scalar: _Node, is_text: bool, in_list: bool) -> bool:
    """Whether a scalar without quotes is something else than it looks like."""
    kind, text = scalar.tag.rpartition(":")[2], scalar.value
    if scalar.style is not None:
        return False
    if kind == "bool":
        return is_text and text.lower() not in ("true", "false")
    if kind == "null":
        return is_text and in_list
    if kind in ("int", "float") and is_text:
        return bool(str(_constructed(scalar)) != text)
    return kind == "int" and re.fullmatch(r"[-+]?0[0-7_]+|.*:.*", text) is not None


def _reads(scalar: _Node) -> str:
    value = _constructed(scalar)
    shown = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else value
    return f"YAML reads {scalar.value or 'an empty value'} without quotes as {shown}"


def _constructed(node: _Node) -> Any:
    return get_yaml_loader()("").construct_object(node, deep=True)


def _items(path: Path, node: _Node) -> Iterator[tuple[_Node, _Node]]:
    """The keys of a mapping with their values; each key once."""
    seen: dict[str, _Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{_line(path, key)}: a key must be a name")
        if key.value in seen:
            raise InputError(f"{_line(path, key)}: {key.value}: is in line {seen[key.value].start_mark.line + 1}, too")
        seen[key.value] = key
        yield key, value


def _line(path: Path, node: _Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
