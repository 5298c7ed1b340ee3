"""Which of the processes of one run this is, by the variables of the launcher that started them all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from afqmc.errors import InputError

_PORTS = (20_000, 40_000)  # of which a job of Slurm takes one by its number
_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # which Accelerate would obey


@dataclass(frozen=True)
class Rank:
    """A process among those of one run.

    Attributes:
        number: From 0; rank 0 is the main process.
        size: How many there are.
        local: Its number among those of its host.
        local_size: How many this host has.
    """

    number: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it decides, writes and speaks."""
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.size == 1


def is_beside_others(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that a launcher has started for one run."""
    return environment.get("WORLD_SIZE", "1") != "1"


def here(environment: Mapping[str, str] = os.environ) -> Rank:
    """This process, by the variables of torchrun (which ``accelerate launch`` and ``adopt_slurm`` set too)."""
    if not is_beside_others(environment):
        for name in _MPI:
            if "WORLD_SIZE" not in environment and int(environment.get(name, "1")) > 1:
                raise InputError(
                    f"{name}={environment[name]}: mpirun's processes do not meet here; torchrun's and srun's do"
                )
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if not environment.get(name)]:
        raise InputError(f"WORLD_SIZE={environment['WORLD_SIZE']}: {', '.join(missing)} not set; torchrun sets them")
    return Rank(*(int(environment[name]) for name in names[:4]))


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give the tasks of an ``srun`` the variables of torchrun; what is set already stays."""
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    first, last = _PORTS
    job = int(environment["SLURM_JOB_ID"]) * 7 + int(environment["SLURM_STEP_ID"])
    found = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])[int(environment["SLURM_NODEID"])]),
        "MASTER_ADDR": _first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(first + job % (last - first)),
    }
    for name, value in found.items():
        environment.setdefault(name, value)


def _first_host(hosts: str) -> str:
    """``gpu[03-05,9],login`` is gpu03 and others."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", hosts)[0])


def _tasks(text: str) -> list[int]:
    """``2(x3),1`` is 2, 2, 2, 1."""
    found: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        found += [int(count)] * int(times or 1)
    return found
