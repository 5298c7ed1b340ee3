"""Check this machine and the data against the record of a run, before the run is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afqmc.config import default_dataset_url
from afqmc.data.config import Source
from afqmc.data.loading import resolve_files
from afqmc.results.run_record import RunRecord
from afqmc.runner.experiment import data_digests
from afqmc.runner.tasks import task_of
from afqmc.training.device import hardware_info, select_device
from afqmc.utils.environment import collect_environment
from afqmc.utils.errors import InputError


@dataclass(frozen=True)
class RecordChanges:
    """Differences between this machine and the record of a run.

    Attributes:
        rounding: Differences that change the rounding of sums, each ``name before -> now``.
        other: All other differences.
        is_exact: Whether the device repeats sums bit for bit: a CPU does, and ``trainer.deterministic`` asks for it.
    """

    rounding: Sequence[str]
    other: Sequence[str]
    is_exact: bool

    @property
    def causes(self) -> list[str]:
        """Everything that may explain other bits."""
        order = [] if self.is_exact else ["this device adds numbers in an order that varies from run to run"]
        return [*self.rounding, *order]


def compare_environment(record: RunRecord) -> RecordChanges:
    """Compare the environment of this process with that of the record.

    Raises:
        InputError: if the configured device is not on this machine.
    """
    trainer = record.config.trainer
    choice = select_device(trainer)
    now = collect_environment(hardware_info(choice))
    is_exact = choice.device == "cpu" or trainer.deterministic
    return RecordChanges(record.rounding_changes(now), record.other_changes(now), is_exact)


def check_recorded_data(record: RunRecord) -> str | None:
    """Load the data, and check their digests against the record; return a warning if it has none.

    A download from an address other than the official one must be in the cache already: the record is untrusted.

    Raises:
        InputError: naming the first split that has changed.
    """
    dataset = record.config.dataset
    if dataset.source is Source.url and dataset.url != default_dataset_url():
        resolve_files(dataset, fetch=False)
    data = task_of(record.config).load_data()
    for split, now in data_digests(data).items():
        before = record.digests.get(split)
        if before is not None and before.get("sha256") != now["sha256"]:
            raise InputError(
                f"{record.run.path}: the {split} split has changed since the run: {before.get('pairs')} pairs then, "
                f"{now['pairs']} now; --data DIR names the directory of the data that the run had"
            )
    return None if record.digests else "the record has no digests of the data: they are assumed to be the same"
