"""The ``sweep`` config group: settings of a sweep as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from afqmc.utils.errors import InputError
from afqmc.utils.fields import config_field


@dataclass
class SweepConfig:
    """The ``sweep`` group; not used by single runs."""

    name: Optional[str] = config_field(
        None, "directory under outputs/sweeps; using the same name again resumes the sweep"
    )
    fail_fast: bool = config_field(False, "start no further jobs after one has failed")
    variant: Optional[str] = config_field(None, "one of hydra.sweeper.variants; names the run's setting in comparisons")
    baseline: Optional[str] = config_field(None, "the variant that afqmc.compare compares all others with")
    retry_failed: bool = config_field(False, "when resuming a sweep, rerun failed and cancelled jobs")


def check_sweep(config: SweepConfig) -> None:
    """Check that the sweep's name is the name of a directory.

    Raises:
        InputError: If it is not.
    """
    name = config.name
    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"sweep.name={name}: must be the name of a directory, without a slash")
