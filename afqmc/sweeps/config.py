"""The ``sweep`` group: what concerns the runs of a sweep together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from afqmc.utils.errors import InputError
from afqmc.utils.fields import config_field


@dataclass
class SweepConfig:
    """The ``sweep`` group; a single run has no use for it."""

    name: Optional[str] = config_field(
        None, "its directory under outputs/sweeps; the same name goes on with the same sweep"
    )
    fail_fast: bool = config_field(False, "start no more jobs after one has failed")
    retry_failed: bool = config_field(False, "of a sweep that is gone on with, run the failed jobs again too")


def check_sweep(config: SweepConfig) -> None:
    """Hold the name to one of a directory.

    Raises:
        InputError: naming what is legal.
    """
    name = config.name
    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"sweep.name={name}: must be the name of a directory, without a slash")
