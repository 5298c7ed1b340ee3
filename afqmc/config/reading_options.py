"""Overrides of a saved config for reading another data file: format, columns, encoding and so on."""

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
    """Split arguments into paths and ``key=value`` overrides. The name of an existing file is always a path."""
    split: tuple[list[str], list[str]] = ([], [])
    for argument in arguments:
        split[bool(_OVERRIDE.match(argument)) and not os.path.lexists(argument)].append(argument)
    return split


def with_reading_options(saved: Config, overrides: list[str], labelled: bool = True) -> Config:
    """Return the saved config with overrides of the keys in ``KEYS``.

    Args:
        saved: The config of a run.
        overrides: ``key=value`` arguments.
        labelled: Whether labels are read from the data.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    node = OmegaConf.structured(saved)
    try:
        for override in OverridesParser.create().parse_overrides(quote_overrides(overrides)):
            key, text = override.key_or_group, str(override.input_line)
            if key not in KEYS:
                hint = did_you_mean(key, KEYS) if key.startswith("dataset.") else f"; allowed: {', '.join(KEYS)}"
                raise InputError(f"{text}: not a key about how a file is read{hint}")
            if override.is_add() or override.is_delete() or override.is_force_add() or override.is_sweep_override():
                raise InputError(f"{text}: write {key}=value, with one value")
            try:
                OmegaConf.update(node, key, override.value(), merge=True, force_add=False)
            except OmegaConfBaseException as error:
                raise InputError(f"{text}{format_hydra_error(error).removeprefix(key)}") from error
        return to_config(node, labelled)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(format_hydra_error(error)) from error
