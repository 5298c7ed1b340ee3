"""Checks the YAML files that a command names before Hydra reads them, so that messages have the file and the line."""

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
from afqmc.config.schema import Config
from afqmc.utils.command_help import conf_dir, groups, options
from afqmc.utils.errors import InputError, did_you_mean, elide

_SECTIONS = Config.__dataclass_fields__  # groups and top-level keys
_Node = Any  # a node of PyYAML, which has no types


def check_files(overrides: Iterable[str], directories: Sequence[Path] = ()) -> None:
    """Check the files that ``group=option`` overrides name, and the files that their ``defaults`` name.

    Args:
        overrides: Arguments of the command line; flags and other keys are skipped.
        directories: Config directories of the user, besides the packaged one.

    Raises:
        InputError: ``file:line: what is wrong; what is allowed``.
    """
    files = _FileChecker([Path(conf_dir()), *directories])
    for override in overrides:
        group, _, names = override.lstrip("+").partition("=")
        for name in names.split(","):
            files.check(group, name)


@dataclass
class _FileChecker:
    """Checks config files, each once.

    Attributes:
        directories: The config directories, in the order of the search.
        checked: The files that have been checked.
    """

    directories: list[Path]
    checked: set[Path] = field(default_factory=set)

    def check(self, group: str, name: str) -> None:
        """Check one option of a group, if there is a file of that name."""
        try:
            paths = [directory / group / f"{name}.yaml" for directory in self.directories] if group and name else []
            path = next((path for path in paths if path.is_file()), None)
        except (OSError, ValueError):  # the name is too long or has a null byte
            return
        if path is None or path in self.checked or group.startswith("hydra"):
            return
        self.checked.add(path)
        text, root = _parse(path)
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
        previous = ""  # the last entry that is not an override
        for entry in entries.value:
            where = _line(path, entry)
            if isinstance(entry, yaml.ScalarNode):
                if entry.value.startswith("override") or ": " in entry.value:
                    raise InputError(
                        f"{where}: {entry.value}: needs a colon and no quotes, as in `- override /model: mini`"
                    )
                if entry.value != "_self_":
                    previous = entry.value
                    self.check(*_split_option(entry.value, group))
                continue
            if not isinstance(entry, yaml.MappingNode) or len(entry.value) != 1:
                raise InputError(f"{where}: each entry of defaults is one name or one `group: option`")
            is_override = self._check_choice(where, group, *entry.value[0])
            if is_override and previous:
                raise InputError(f"{where}: an override stands after {previous!r}; overrides come last in defaults")
            previous = previous if is_override else entry.value[0][0].value

    def _check_choice(self, where: str, group: str, key: _Node, value: _Node) -> bool:
        """Check an entry ``group: option`` or ``override /group: option``, and return whether it is an override."""
        *words, target = key.value.split() or [""]
        option = value.value if isinstance(value, yaml.ScalarNode) else "OPTION"
        name = target.partition("@")[0].lstrip("/")
        known = groups(self.directories)
        if name not in known and not name.startswith("hydra/"):
            raise InputError(f"{where}: {key.value}: no such group{did_you_mean(name, known)}")
        if (name in _SECTIONS or name in ("experiment", "debug")) and ("override" not in words or target[0] != "/"):
            raise InputError(
                f"{where}: {key.value}: {option}: config.yaml has a {name}, so write `- override /{name}: {option}`"
            )
        if isinstance(value, yaml.SequenceNode) and name in _SECTIONS:
            raise InputError(f"{where}: {key.value}: one option is needed, found {len(value.value)}")
        if isinstance(value, yaml.ScalarNode) and value.tag.endswith(":bool"):
            raise InputError(f'{where}: {key.value}: {_misreading(value)}; write "{option}"')
        self.check(name, option)
        return "override" in words


def _split_option(entry: str, group: str) -> tuple[str, str]:
    """Return the group and option of an entry ``/group/option``, or ``option`` of the file's own group."""
    parent, _, name = entry.rpartition("/")
    return (parent.lstrip("/") if entry.startswith("/") else "/".join(filter(None, (group, parent)))), name


def _parse(path: Path) -> tuple[str, _Node]:
    """Return the text and the root node, which is None for an empty file."""
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
    """Return the prefix of the keys in a file, ``""`` or ``dataset.``; None if the schema lacks the section."""
    try:
        package = ConfigSource._get_header_dict(text[:512]).get("package")
    except ValueError as error:
        raise InputError(f"{path}:1: {error}; the first line is `# @package _global_`") from error
    if package == "_global_":
        return ""
    if group in ("experiment", "debug", "sweep") and package not in _SECTIONS:
        raise InputError(
            f"{path}:1: the first line must be `# @package _global_`: without it, lr in this file is {group}.lr"
        )
    section = package or group
    return f"{section}." if section in _SECTIONS else None


def _check_key(path: Path, prefix: str, key: _Node, value: _Node) -> None:
    """Check a key with its value, or all keys of a section."""
    name, where, known = f"{prefix}{key.value}", _line(path, key), schema_fields(Config)
    if key.value == "<<":  # YAML merges a mapping here
        return
    if "." in key.value:
        parent, _, last = key.value.rpartition(".")
        raise InputError(f"{where}: {key.value}: a dot has no meaning in YAML; write {last} below {parent}:")
    if name in known:
        _check_value(_line(path, value), name, known[name][1], value)
        return
    if any(name.startswith(f"{valid}.") for valid in known):  # an argument, checked against the signature of its target
        return
    is_section = any(valid.startswith(f"{name}.") for valid in known)
    if not is_section:
        siblings = {valid.removeprefix(prefix).partition(".")[0] for valid in known if valid.startswith(prefix)}
        raise InputError(f"{where}: {unknown_key(name, siblings)}")
    if not isinstance(value, yaml.MappingNode):
        if isinstance(value, yaml.ScalarNode) and value.value in options(name):
            raise InputError(f"{where}: {name}: {value.value}: write `- override /{name}: {value.value}` in defaults")
        raise InputError(f"{where}: {name}: must hold keys, indented on the lines below; leave it out for none")
    for child, content in _items(path, value):
        _check_key(path, f"{name}.", child, content)


@cache
def _typed_config() -> Any:
    """Return a config that checks types of values. Its own values are of no use: each check overwrites one."""
    return OmegaConf.structured(Config)


def _check_value(where: str, key: str, kind: Any, node: _Node) -> None:
    """Check that YAML does not read a value as something else, and that it has the type of the schema."""
    kinds = (kind, *get_args(kind), *(inner for argument in get_args(kind) for inner in get_args(argument)))
    scalars = node.value if isinstance(node, yaml.SequenceNode) else [node]
    is_text = any(item is str or (isinstance(item, type) and issubclass(item, Enum)) for item in kinds)
    for scalar in scalars:
        if isinstance(scalar, yaml.ScalarNode) and _is_misread(scalar, is_text, scalar is not node):
            fix = f'write "{scalar.value}"' if is_text else "write it as a decimal number"
            raise InputError(f"{where}: {key}: {_misreading(scalar)}; {fix}")
    value = _construct(node)
    if "${" in str(value) or value == "???":
        return
    try:
        OmegaConf.update(_typed_config(), key, value)
    except OmegaConfBaseException as error:
        raw = node.value if isinstance(node, yaml.ScalarNode) else value
        reason = format_hydra_error(error).removeprefix(f"{key}: ")
        raise InputError(f"{where}: {key}: {elide(str(raw)) or 'empty'}: {reason}") from error


def _is_misread(scalar: _Node, is_text: bool, in_list: bool) -> bool:
    """Return whether YAML reads a scalar without quotes as something else than it looks like."""
    kind, text = scalar.tag.rpartition(":")[2], scalar.value
    if scalar.style is not None:
        return False
    if kind == "bool":
        return is_text and text.lower() not in ("true", "false")
    if kind == "null":
        return is_text and in_list
    if kind in ("int", "float") and is_text:
        return bool(str(_construct(scalar)) != text)
    return kind == "int" and re.fullmatch(r"[-+]?0[0-7_]+|.*:.*", text) is not None


def _misreading(scalar: _Node) -> str:
    value = _construct(scalar)
    shown = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else value
    return f"YAML reads {scalar.value or 'an empty value'} without quotes as {shown}"


def _construct(node: _Node) -> Any:
    return get_yaml_loader()("").construct_object(node, deep=True)


def _items(path: Path, node: _Node) -> Iterator[tuple[_Node, _Node]]:
    """Yield the (key, value) nodes of a mapping, rejecting duplicate keys."""
    seen: dict[str, _Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{_line(path, key)}: a key must be a name")
        if key.value in seen:
            raise InputError(
                f"{_line(path, key)}: {key.value}: duplicate; it is in line {seen[key.value].start_mark.line + 1} too"
            )
        seen[key.value] = key
        yield key, value


def _line(path: Path, node: _Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
