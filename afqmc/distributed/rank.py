"""Which of the processes of one run this is, by the variables of the launcher that started them all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from afqmc.utils.errors import InputError

_PORTS = (20_000, 40_000)  # of which a job of Slurm takes one by its number
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # in the order of Rank
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_MPI = (  # every variable of MPI that Accelerate reads
    *_MPI_SIZES, "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE",
)  # fmt: skip
_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")  # as Accelerate reads them
_FLAG = re.compile(
    r"ACCELERATE_(?:USE_\w+|DEBUG_MODE|CPU_AFFINITY|ENABLE_RICH|DOWNCAST_BF16|ALLOW_CP_STANDALONE|BYPASS_DEVICE_MAP"
    r"|DEEPSPEED_ZERO3_INIT|DEEPSPEED_ZERO3_SAVE_16BIT_MODEL)"
)
_WAYS_OUT = f"torchrun sets all of them; for a run of one process: unset {' '.join(_NUMBERS)}"


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
    def is_single(self) -> bool:
        """Whether there are no others."""
        return self.size == 1


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that a launcher has started for one run."""
    size = environment.get("WORLD_SIZE", "")
    return size.isdecimal() and int(size) > 1


def current_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """This process, by the variables of torchrun (which ``accelerate launch`` and ``export_torchrun_env`` set too).

    Variables that are left over from a launcher and describe a single process are accepted.

    Raises:
        InputError: naming the variable that is missing, not a number, or contradicts another.
    """
    found = {name: _count(environment, name) for name in _NUMBERS}
    size = found["WORLD_SIZE"]
    if size is None or size == 1:
        if size is None:
            _refuse_mpi(environment)
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            if (found[name] or 0) > (name == "LOCAL_WORLD_SIZE"):
                raise InputError(f"{name}={found[name]}: but WORLD_SIZE is {size or 'not set'}; {_WAYS_OUT}")
        return Rank()
    if missing := [name for name in (*_NUMBERS, *_MEETING) if not environment.get(name, "").strip()]:
        raise InputError(f"WORLD_SIZE={size}: {', '.join(missing)} not set; {_WAYS_OUT}")
    rank, port = Rank(*(number or 0 for number in found.values())), _count(environment, "MASTER_PORT") or 0
    rules = {
        f"WORLD_SIZE={rank.size}: must be >= 1": rank.size >= 1,
        f"RANK={rank.number}: must be < WORLD_SIZE={rank.size}": rank.number < rank.size,
        f"LOCAL_WORLD_SIZE={rank.local_size}: must be <= WORLD_SIZE={rank.size}": rank.local_size <= rank.size,
        f"LOCAL_RANK={rank.local}: must be < LOCAL_WORLD_SIZE={rank.local_size}": rank.local < rank.local_size,
        f"LOCAL_RANK={rank.local}: must be <= RANK={rank.number}": rank.local <= rank.number,
        f"MASTER_PORT={port}: must be from 1 to 65535": 0 < port < 1 << 16,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(f"{rule}; {_WAYS_OUT}")
    return rank


def hide_from_accelerate(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove the variables that make Accelerate look for a process group where there is none."""
    for name in (*_MPI, *(_NUMBERS if current_rank(environment).is_single else ())):
        environment.pop(name, None)


def is_true(text: str) -> bool:
    """Whether Accelerate reads this value of a variable as true."""
    return text.strip().lower() in _TRUE


def check_flags(environment: Mapping[str, str] = os.environ) -> None:
    """Check the truth values among Accelerate's variables, some of which it reads when it is imported.

    Raises:
        InputError: naming the variable and the legal values.
    """
    for name, value in environment.items():
        if _FLAG.fullmatch(name) and value.lower() not in (*_TRUE, *_FALSE):
            raise InputError(f"{name}={value}: legal: {', '.join((*_TRUE, *_FALSE))}; or unset {name}")


def _refuse_mpi(environment: Mapping[str, str]) -> None:
    for name in _MPI_SIZES:
        if (_count(environment, name) or 1) > 1:
            raise InputError(
                f"{name}={environment[name]}: mpirun's processes do not meet here; torchrun's and srun's do"
            )


def _count(environment: Mapping[str, str], name: str) -> int | None:
    """The number in a variable; None where it is not set, or empty.

    Raises:
        InputError: where it is not a number from 0.
    """
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InputError(f"{name}={text}: must be a whole number from 0; {_WAYS_OUT}")
    return int(text)


def export_torchrun_env(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give the tasks of an ``srun`` the variables of torchrun; what is set already stays.

    Raises:
        InputError: naming a variable of Slurm that is missing or invalid.
    """
    tasks = _count(environment, "SLURM_STEP_NUM_TASKS") or 1
    if environment.get("RANK") or tasks == 1:
        return
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    numbers = {name: _count(environment, name) for name in names}
    texts = {name: environment.get(name) for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST")}
    if missing := [name for name, value in {**numbers, **texts}.items() if value in (None, "")]:
        raise InputError(f"SLURM_STEP_NUM_TASKS={tasks}: {', '.join(missing)} not set; srun sets all of them")
    rank, local, node, job, step = (number or 0 for number in numbers.values())
    of_node = _tasks(texts["SLURM_STEP_TASKS_PER_NODE"] or "")
    if node >= len(of_node):
        told = f"SLURM_STEP_TASKS_PER_NODE={texts['SLURM_STEP_TASKS_PER_NODE']}"
        raise InputError(f"SLURM_NODEID={node}: is not a node of {told}; srun sets both")
    first, last = _PORTS
    found = {
        "RANK": str(rank),
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(of_node[node]),
        "MASTER_ADDR": _first_host(texts["SLURM_STEP_NODELIST"] or ""),
        "MASTER_PORT": str(first + (job * 7 + step) % (last - first)),
    }
    for name, value in found.items():
        environment[name] = environment.get(name) or value


def _first_host(hosts: str) -> str:
    """``gpu[03-05,9],login`` is gpu03 and others."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", hosts)[0])


def _tasks(text: str) -> list[int]:
    """``2(x3),1`` is 2, 2, 2, 1."""
    found: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        found += [int(count)] * int(times or 1)
    return found
