"""Turns errors of Hydra and OmegaConf into one message: the key, what is wrong, what is allowed, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from afqmc.config.renamed_keys import new_name, new_value
from afqmc.config.schema import Config
from afqmc.utils.command_help import options
from afqmc.utils.errors import InputError, UnswallowedInputError, did_you_mean, elide, first_line
from afqmc.utils.fields import format_bounds

# our key by its name in the Hugging Face Trainer and its scripts
HF_ALIASES = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "per_device_eval_batch_size": "trainer.eval_batch_size",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "data_seed": "seed",
    "warmup_ratio": "scheduler.warmup_ratio",
    "warmup_steps": "scheduler.warmup_steps",
    "lr_scheduler_type": "scheduler",
    "optim": "optimizer",
    "weight_decay": "optimizer.weight_decay",
    "logging_steps": "trainer.logging_steps",
    "save_total_limit": "checkpoint.keep_weights",
    "label_smoothing_factor": "objective.label_smoothing",
    "early_stopping_patience": "trainer.patience",
    "early_stopping_threshold": "trainer.min_delta",
    "metric_for_best_model": "trainer.monitor",
    "greater_is_better": "trainer.mode",
    "bf16": "trainer.mixed_precision=bf16",
    "fp16": "trainer.mixed_precision=fp16",
    "model_name_or_path": "model.name_or_path",
    "max_seq_length": "dataset.max_length",
    "validation_file": "dataset.dev_file",
    "report_to": "tracker",
    "run_name": "tracker.name",
    "output_dir": "hydra.run.dir",
}
_OPEN = {  # mappings that accept keys outside of the schema
    "optimizer": "an argument of its _target_",
    "scheduler": "an argument of its _target_",
    "objective": "an argument of its _target_",
    "callbacks": "a callback by its _target_",
    "model.transforms": "a transform by its _target_",
    "model.kwargs": "an argument of its _target_",
    "model.config_overrides": "a change to the encoder's config, with model.from_scratch=true",
    "dataset.checksums": "the sha256 of a file",
}
_LEXER_ERROR = "LexerNoViableAltException: "


def format_hydra_error(error: BaseException) -> str:
    """Return one message for an error of Hydra or OmegaConf, with the nearest valid name for an invalid one."""
    causes: list[BaseException] = [error]
    while isinstance(cause := causes[-1].__cause__, HydraException | OmegaConfBaseException):
        causes.append(cause)
    text, last = "\n".join(str(cause) for cause in causes), causes[-1]
    if isinstance(last.__cause__, InputError):  # raised by our launcher or sweeper as Hydra instantiates it
        return str(last.__cause__)
    if isinstance(error, UnswallowedInputError):
        return text
    if isinstance(error, MissingConfigException):
        return _format_missing_option(error, text)
    if isinstance(error, OverrideParseException):
        return _format_parse_error(str(error.override), text)
    for pattern, formatter in _FORMATTERS:
        if match := re.search(pattern, text):
            return formatter(match[1])
    key = _first_match(r"full_key: (\S+)", text)
    if isinstance(last, OmegaConfBaseException) and re.search(r"Key '[^']+' (is not in struct|not in)", text):
        return _format_unknown_key(key, last)
    if isinstance(last, OmegaConfBaseException) and key:
        return _format_invalid_value(key, text, last)
    if match := re.match(r"In '([^']+)': \w+ raised while composing config:\n(.+)", text):
        return f"{match[1]}.yaml: {match[2]}" + (f" (key {key})" if key else "")
    lines = [first_line(cause) for cause in (error, last) if str(cause).strip()]
    return ": ".join(dict.fromkeys(lines)) or type(error).__name__


def unknown_key(key: str, siblings: Iterable[str] = ()) -> str:
    """Return the message for a key that does not exist: our name for it, or the nearest of its siblings.

    Args:
        key: As given, with its group.
        siblings: The keys of that group; by default the top-level keys of the schema.
    """
    if replacement := new_name(key.lstrip("+")):
        return f"{key}: is now {replacement}"
    prefix, _, name = key.rpartition(".")
    names = list(siblings) or ([] if prefix in _OPEN else [item.name for item in fields(Config)])
    matches = [valid for valid in (*schema_fields(Config), HF_ALIASES.get(name, "")) if valid.split(".")[-1] == name]
    elsewhere = HF_ALIASES.get(name) or (matches[0] if len(matches) == 1 else "")
    hint = f"; did you mean {elsewhere!r}?" if elsewhere and elsewhere != key else did_you_mean(name, names)
    added = f" (+{key}=... adds {_OPEN[prefix]})" if prefix in _OPEN else ""
    return f"{key}: no such key{hint}{added}"


@cache
def schema_fields(schema: type, prefix: str = "") -> Mapping[str, Any]:
    """Return (dataclass field, type) of every key of the schema, by its full name."""
    by_key: dict[str, Any] = {}
    kinds = get_type_hints(schema)
    for item in fields(schema):
        kind, key = kinds[item.name], prefix + item.name
        by_key |= schema_fields(kind, f"{key}.") if is_dataclass(kind) else {key: (item, kind)}  # type: ignore[arg-type]
    return by_key


def _format_several_values(override: str) -> str:
    shown = elide(override)
    return (
        f"{shown}: several values; -m runs each: python -m afqmc.run -m {shown} "
        "(a list is [a,b]; a comma in a text is written \\,)"
    )


_FORMATTERS: tuple[tuple[str, Callable[[str], str]], ...] = (  # of the first group of each pattern
    (r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", _format_several_values),
    (r"Could not override '([^']+)'\.\s*No match in the defaults list", unknown_key),
    (
        r"Could not append to config\. An item is already at '([^']+)'",
        lambda key: f"+{key}=...: {key} already exists; {key}=... sets it",
    ),
)


def _format_parse_error(override: str, text: str) -> str:
    """Return the message for an override outside of Hydra's grammar, with the position if Hydra names it."""
    if "=" not in override:
        return f"{elide(override)}: has no value; write key=value"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Error parsing override")]
    reason = lines[0] if lines else "not in Hydra's grammar"
    if reason.startswith(_LEXER_ERROR):
        start = next((len(line) - 1 - len(_LEXER_ERROR) for line in lines if line.strip() == "^"), 0)
        reason = f"unexpected {override[start : start + 20]!r}"
    return f"{elide(override)}: cannot be read: {elide(reason)} (quote spaces, commas, brackets)"


def _format_unknown_key(key: str, error: OmegaConfBaseException) -> str:
    parent = error.parent_node
    names = [str(item) for item in parent] if isinstance(parent, DictConfig) else []
    return unknown_key(key, [item for item in names if item != "hydra"])


def _format_invalid_value(key: str, text: str, error: OmegaConfBaseException) -> str:
    """Return the message for a value of the wrong type, with the type that the schema allows."""
    override = _first_match(r"Error merging override (.+)", text)
    shown = override if override.startswith(key) else key
    if isinstance(error, InterpolationResolutionError | UnsupportedInterpolationType):
        return f"{elide(shown)}: {first_line(error)}"
    if replacement := new_value(key, shown.partition("=")[2]):
        return f"{shown}: is now {key}={replacement}"
    schema_field = schema_fields(Config).get(re.sub(r"\[\d+\]$", "", key))
    if schema_field is not None:
        item, kind = schema_field
        help = "" if _is_enum(kind) or "help" not in item.metadata else f" ({item.metadata['help']})"
        return f"{shown}: must be {_describe_type(kind, item.metadata.get('bounds', {}))}{help}"
    reason = first_line(error).replace("a ListConfig, list or tuple", "a list")
    reason = reason.replace("DictConfig", "a mapping").replace("ListConfig", "a list")
    return f"{elide(shown)}: {reason[:1].lower()}{reason[1:]}"


def _describe_type(kind: Any, bounds: dict[str, float]) -> str:
    """Describe a type and its range: ``a whole number >= 1``."""
    inner = [argument for argument in get_args(kind) if argument is not type(None)]
    if get_origin(kind) is Union:
        return f"{_describe_type(inner[0], bounds)}, or null"
    if _is_enum(kind):
        return f"one of {', '.join(member.name for member in kind)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    word = words.get(kind) or ("a list, as [a,b]" if get_origin(kind) is list else "a mapping, as {a: b}")
    return f"{word} {format_bounds(bounds)}".strip()


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _format_missing_option(error: BaseException, text: str) -> str:
    """Return the message for an option that a group does not have, with the options that it has."""
    group, _, name = _first_match(r"Could not (?:find|load) '([^']+)'", text).rpartition("/")
    if replacement := new_value(group, name):
        return f"{group}={name}: is now {group}={replacement}"
    listed = text.partition("Available options in")[2]  # Hydra lists none for a list, as in callbacks=[a,b]
    names = [line.strip() for line in listed.splitlines()[1:] if re.fullmatch(r"\s+[\w./-]+", line)]
    names = names or (options(group) if group else [])
    if not names:
        return first_line(error)
    hint = did_you_mean(name, names)
    return f"{group}={name}: no such {group}{hint}" + (f" There are: {', '.join(names)}" if "did you" in hint else "")


def _first_match(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
