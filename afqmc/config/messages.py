"""What Hydra or OmegaConf refused, in one message: the key, what was found, what is legal, the nearest valid name."""

from __future__ import annotations

import re
from dataclasses import fields

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from afqmc.config.schema import Config
from afqmc.errors import Refused, did_you_mean


def explain(error: BaseException) -> str:
    """One message for what Hydra or OmegaConf refused, with the nearest valid name where a name was wrong."""
    causes: list[BaseException] = [error]
    while isinstance(cause := causes[-1].__cause__, HydraException | OmegaConfBaseException):
        causes.append(cause)
    text, last = "\n".join(str(cause) for cause in causes), causes[-1]
    if isinstance(error, Refused):
        return text
    if isinstance(error, MissingConfigException):
        return _explain_missing(text)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read: {text.splitlines()[0]} (quote spaces, commas, brackets)"
    if group := _first(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
        return f"{group}: no such group{did_you_mean(group, [item.name for item in fields(Config)])}"
    key = _first(r"full_key: (\S+)", text)
    if isinstance(last, OmegaConfBaseException) and re.search(r"Key '[^']+' (is not in struct|not in)", text):
        return _explain_unknown(key, last)
    reason = next((line for line in str(last).splitlines() if line.strip()), text)
    if isinstance(last, OmegaConfBaseException) and key:
        wrong = _first(r"Error merging override (\S+)", text)
        return f"{wrong if wrong.startswith(key) else key}: {reason[:1].lower()}{reason[1:]}"
    return text.splitlines()[0] if len(causes) == 1 else f"{text.splitlines()[0]}: {reason}"


def _explain_unknown(key: str, error: OmegaConfBaseException) -> str:
    """An unknown key beside the keys there are; the groups that take any argument say how to add one."""
    prefix, _, name = key.rpartition(".")
    parent = error.parent_node
    names = [str(item) for item in parent] if isinstance(parent, DictConfig) else [item.name for item in fields(Config)]
    hint = did_you_mean(name, [item for item in names if item != "hydra"])
    added = f" (+{key}=... passes a further argument to its _target_)" if prefix in ("optimizer", "scheduler") else ""
    return f"{key}: no such key{hint}{added}"


def _explain_missing(text: str) -> str:
    """An option that a group does not have, beside those it has."""
    option = _first(r"Could not (?:find|load) '([^']+)'", text)
    listed = text.partition("Available options in")[2]
    options = [line.strip() for line in listed.splitlines()[1:] if re.fullmatch(r"\s+[\w./-]+", line)]
    group, _, name = option.rpartition("/")
    if not options:
        return text.strip().splitlines()[0]
    hint = did_you_mean(name, options)
    return f"{group}={name}: no such {group}{hint}" + (f" There are: {', '.join(options)}" if "did you" in hint else "")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""
