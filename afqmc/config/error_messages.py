"""What Hydra or OmegaConf refused, in one message: the key, what was found, what is legal, the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from afqmc.config.renamed_keys import new_name
from afqmc.config.schema import Config
from afqmc.utils.errors import InputError, UnswallowedInputError, did_you_mean, elide, first_line
from afqmc.utils.fields import format_bounds

# what the Hugging Face Trainer and its scripts call the same knob
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
_OPEN = {  # mappings that take keys the schema does not know
    "optimizer": "an argument of its _target_",
    "scheduler": "an argument of its _target_",
    "objective": "an argument of its _target_",
    "callbacks": "a callback by its _target_",
    "model.transforms": "a transform by its _target_",
    "model.args": "an argument of its _target_",
    "model.architecture": "a change to the encoder's config, with model.from_scratch=true",
    "dataset.checksums": "the sha256 of a file",
}


_NO_SUCH_LETTER = "LexerNoViableAltException: "


def format_hydra_error(error: BaseException) -> str:
    """One message for what Hydra or OmegaConf refused, with the nearest valid name where a name was wrong."""
    causes: list[BaseException] = [error]
    while isinstance(cause := causes[-1].__cause__, HydraException | OmegaConfBaseException):
        causes.append(cause)
    text, last = "\n".join(str(cause) for cause in causes), causes[-1]
    if isinstance(last.__cause__, InputError):  # of a launcher or sweeper of ours, which Hydra makes
        return str(last.__cause__)
    if isinstance(error, UnswallowedInputError):
        return text
    if isinstance(error, MissingConfigException):
        return _explain_missing(error, text)
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(str(error.override), text)
    if several := _first(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", text):
        several = elide(several)
        return (
            f"{several}: several values; -m runs each: python -m afqmc.run -m {several} "
            "(a list is [a,b]; a comma in a text is written \\,)"
        )
    if group := _first(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
        return unknown_key(group)
    if there := _first(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"+{there}=...: {there} is there already; {there}=... sets it"
    key = _first(r"full_key: (\S+)", text)
    if isinstance(last, OmegaConfBaseException) and re.search(r"Key '[^']+' (is not in struct|not in)", text):
        return _explain_unknown(key, last)
    if isinstance(last, OmegaConfBaseException) and key:
        return _explain_value(key, text, last)
    if composing := re.match(r"In '([^']+)': \w+ raised while composing config:\n(.+)", text):
        return f"{composing[1]}.yaml: {composing[2]}" + (f" (key {key})" if key else "")
    told = [first_line(cause) for cause in (error, last) if str(cause).strip()]
    return ": ".join(dict.fromkeys(told)) or type(error).__name__


def unknown_key(key: str, siblings: Iterable[str] = ()) -> str:
    """A key that there is not: where the same knob is, or the nearest of its siblings.

    Args:
        key: As it was given, with its group.
        siblings: The keys of that group; those of the schema unless given.
    """
    if replacement := new_name(key.lstrip("+")):
        return f"{key}: is now {replacement}"
    prefix, _, name = key.rpartition(".")
    names = list(siblings) or ([] if prefix in _OPEN else [item.name for item in fields(Config)])
    there = [found for found in (*schema_fields(Config), HF_ALIASES.get(name, "")) if found.rpartition(".")[2] == name]
    elsewhere = HF_ALIASES.get(name) or (there[0] if len(there) == 1 else "")
    hint = f"; did you mean {elsewhere!r}?" if elsewhere and elsewhere != key else did_you_mean(name, names)
    added = f" (+{key}=... adds {_OPEN[prefix]})" if prefix in _OPEN else ""
    return f"{key}: no such key{hint}{added}"


def schema_fields(schema: Any, prefix: str = "") -> dict[str, Any]:
    """Every key of the schema in full, with its field."""
    found: dict[str, Any] = {}
    for item in fields(schema):
        kind = get_type_hints(schema)[item.name]
        found |= (
            schema_fields(kind, f"{prefix}{item.name}.") if is_dataclass(kind) else {prefix + item.name: (item, kind)}
        )
    return found


def _explain_unreadable(override: str, text: str) -> str:
    """An override that is not in Hydra's grammar: from which letter on, where that is told."""
    if "=" not in override:
        return f"{elide(override)}: has no value; it is key=value"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Error parsing override")]
    reason = lines[0] if lines else "not in Hydra's grammar"
    if reason.startswith(_NO_SUCH_LETTER):
        start = next((len(line) - 1 - len(_NO_SUCH_LETTER) for line in lines if line.strip() == "^"), 0)
        reason = f"unexpected {override[start : start + 20]!r}"
    return f"{elide(override)}: cannot be read: {elide(reason)} (quote spaces, commas, brackets)"


def _explain_unknown(key: str, error: OmegaConfBaseException) -> str:
    """An unknown key beside the keys there are; the groups that take any argument say how to add one."""
    parent = error.parent_node
    names = [str(item) for item in parent] if isinstance(parent, DictConfig) else []
    return unknown_key(key, [item for item in names if item != "hydra"])


def _explain_value(key: str, text: str, error: OmegaConfBaseException) -> str:
    """A value of the wrong type: what the key takes, where the schema says."""
    wrong = _first(r"Error merging override (.+)", text)
    found = wrong if wrong.startswith(key) else key
    if isinstance(error, InterpolationResolutionError | UnsupportedInterpolationType):
        return f"{elide(found)}: {first_line(error)}"
    known = schema_fields(Config).get(re.sub(r"\[\d+\]$", "", key))
    if known is not None:
        item, kind = known
        help = "" if _is_enum(kind) or "help" not in item.metadata else f" ({item.metadata['help']})"
        return f"{found}: must be {_legal(kind, item.metadata.get('bounds', {}))}{help}"
    reason = first_line(error).replace("a ListConfig, list or tuple", "a list")
    reason = reason.replace("DictConfig", "a mapping").replace("ListConfig", "a list")
    return f"{elide(found)}: {reason[:1].lower()}{reason[1:]}"


def _legal(kind: Any, bounds: dict[str, float]) -> str:
    """A type and its range in words: ``a whole number >= 1``."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Union:
        return f"{_legal(inner[0], bounds)}, or null"
    if _is_enum(kind):
        return "one of " + ", ".join(member.name for member in kind)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    word = words.get(kind) or ("a list, as [a,b]" if get_origin(kind) is list else "a mapping, as {a: b}")
    return f"{word} {format_bounds(bounds)}".strip()


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _explain_missing(error: BaseException, text: str) -> str:
    """An option that a group does not have, beside those it has."""
    option = _first(r"Could not (?:find|load) '([^']+)'", text)
    listed = text.partition("Available options in")[2]
    options = [line.strip() for line in listed.splitlines()[1:] if re.fullmatch(r"\s+[\w./-]+", line)]
    group, _, name = option.rpartition("/")
    if not options:
        return first_line(error)
    hint = did_you_mean(name, options)
    return f"{group}={name}: no such {group}{hint}" + (f" There are: {', '.join(options)}" if "did you" in hint else "")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""
