"""Overrides of a saved config that say how another file of pairs is read: its format, columns and the like."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import fields

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import Config, to_config
from afqmc.config.error_messages import format_hydra_error
from afqmc.config.overrides import quote_overrides
from afqmc.data.config import READING, DatasetConfig
from afqmc.utils.errors import InputError, did_you_mean

KEYS = tuple(f"dataset.{field.name}" for field in fields(DatasetConfig) if field.name in READING)
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.]*=")


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Paths and ``key=value`` overrides; the name of an existing file is a path, whatever it looks like."""
    found: tuple[list[str], list[str]] = ([], [])
    for argument in arguments:
        found[bool(_OVERRIDE.match(argument)) and not os.path.lexists(argument)].append(argument)
    return found


def with_reading_options(saved: Config, overrides: list[str], labelled: bool = True) -> Config:
    """The saved config, with other values for keys about how a file is read.

    Args:
        saved: Of a run.
        overrides: As ``key=value``.
        labelled: Whether labels are read.

    Raises:
        InputError: naming the key, its value and what is legal.
    """
    node = OmegaConf.structured(saved)
    try:
        for override in OverridesParser.create().parse_overrides(quote_overrides(overrides)):
            key, given = override.key_or_group, str(override.input_line)
            if key not in KEYS:
                told = did_you_mean(key, KEYS) if key.startswith("dataset.") else f"; legal: {', '.join(KEYS)}"
                raise InputError(f"{given}: not a key about how a file is read{told}")
            if override.is_add() or override.is_delete() or override.is_force_add() or override.is_sweep_override():
                raise InputError(f"{given}: one value is given as {key}=value")
            try:
                OmegaConf.update(node, key, override.value(), merge=True, force_add=False)
            except OmegaConfBaseException as error:
                raise InputError(f"{given}{format_hydra_error(error).removeprefix(key)}") from error
        return to_config(node, labelled)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(format_hydra_error(error)) from error
