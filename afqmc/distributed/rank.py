"""Rank and world size of this process, from the environment variables of torchrun, accelerate or srun."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from afqmc.utils.errors import InputError

_PORTS = (20_000, 40_000)  # range from which a Slurm step takes its port, by job and step id
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # in the order of the fields of Rank
_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_MPI = (  # all MPI variables that Accelerate reads
    *_MPI_SIZES,
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)
_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")  # as Accelerate reads them
_FLAG = re.compile(
    r"ACCELERATE_(?:USE_\w+|DEBUG_MODE|CPU_AFFINITY|ENABLE_RICH|DOWNCAST_BF16|ALLOW_CP_STANDALONE|BYPASS_DEVICE_MAP"
    r"|DEEPSPEED_ZERO3_INIT|DEEPSPEED_ZERO3_SAVE_16BIT_MODEL)"
)
_REMEDY = f"torchrun sets all of them; for a run of one process: unset {' '.join(_NUMBERS)}"


@dataclass(frozen=True)
class Rank:
    """The position of this process among the processes of one run.

    Attributes:
        rank: From 0 to ``world_size`` - 1; rank 0 is the main process.
        world_size: The number of processes of the run.
        local_rank: The rank among the processes on this host.
        local_world_size: The number of processes on this host.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that decides, writes files and prints."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether the run has one process only."""
        return self.world_size == 1


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher started several processes for this run."""
    size = environment.get("WORLD_SIZE", "")
    return size.isdecimal() and int(size) > 1


def current_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return this process's rank from torchrun's variables.

    ``accelerate launch`` and ``export_torchrun_env`` set the same variables. Left-over variables of a launcher are
    accepted if they describe a single process.

    Raises:
        InputError: naming the variable that is missing, not a number, or contradicts another.
    """
    numbers = {name: _read_number(environment, name) for name in _NUMBERS}
    size = numbers["WORLD_SIZE"]
    if size is None or size == 1:
        if size is None:
            _refuse_mpi(environment)
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            if (numbers[name] or 0) > (name == "LOCAL_WORLD_SIZE"):
                raise InputError(f"{name}={numbers[name]}: but WORLD_SIZE is {size or 'not set'}; {_REMEDY}")
        return Rank()
    if missing := [name for name in (*_NUMBERS, *_MASTER) if not environment.get(name, "").strip()]:
        raise InputError(f"WORLD_SIZE={size}: {', '.join(missing)} not set; {_REMEDY}")
    this, port = Rank(*(number or 0 for number in numbers.values())), _read_number(environment, "MASTER_PORT") or 0
    rank, local_rank, local_size = this.rank, this.local_rank, this.local_world_size
    rules = (
        (size >= 1, f"WORLD_SIZE={size}: must be >= 1"),
        (rank < size, f"RANK={rank}: must be < WORLD_SIZE={size}"),
        (local_size <= size, f"LOCAL_WORLD_SIZE={local_size}: must be <= WORLD_SIZE={size}"),
        (local_rank < local_size, f"LOCAL_RANK={local_rank}: must be < LOCAL_WORLD_SIZE={local_size}"),
        (local_rank <= rank, f"LOCAL_RANK={local_rank}: must be <= RANK={rank}"),
        (0 < port < 1 << 16, f"MASTER_PORT={port}: must be from 1 to 65535"),
    )
    for is_met, rule in rules:
        if not is_met:
            raise InputError(f"{rule}; {_REMEDY}")
    return this


def hide_from_accelerate(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove the variables that would make Accelerate set up a process group for a single process, or by MPI."""
    for name in (*_MPI, *(_NUMBERS if current_rank(environment).is_single else ())):
        environment.pop(name, None)


def is_true(text: str) -> bool:
    """Return whether Accelerate reads this value of a variable as true."""
    return text.strip().lower() in _TRUE


def check_flags(environment: Mapping[str, str] = os.environ) -> None:
    """Check Accelerate's boolean variables. It reads some of them on import, and raises on invalid values.

    Raises:
        InputError: naming the variable and the allowed values.
    """
    for name, value in environment.items():
        if _FLAG.fullmatch(name) and value.lower() not in (*_TRUE, *_FALSE):
            raise InputError(f"{name}={value}: allowed: {', '.join((*_TRUE, *_FALSE))}; or unset {name}")


def _refuse_mpi(environment: Mapping[str, str]) -> None:
    for name in _MPI_SIZES:
        if (_read_number(environment, name) or 1) > 1:
            raise InputError(f"{name}={environment[name]}: mpirun is not supported; use torchrun or srun")


def _read_number(environment: Mapping[str, str], name: str) -> int | None:
    """Return the number in a variable; None if it is empty or not set.

    Raises:
        InputError: when it is not a whole number from 0.
    """
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InputError(f"{name}={text}: must be a whole number from 0; {_REMEDY}")
    return int(text)


def export_torchrun_env(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set torchrun's variables from Slurm's in the tasks of an ``srun``; variables that are set already stay.

    Raises:
        InputError: naming a variable of Slurm that is missing or invalid.
    """
    tasks = _read_number(environment, "SLURM_STEP_NUM_TASKS") or 1
    if environment.get("RANK") or tasks == 1:
        return
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    numbers = {name: _read_number(environment, name) for name in names}
    texts = {name: environment.get(name) for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST")}
    if missing := [name for name, value in {**numbers, **texts}.items() if value in (None, "")]:
        raise InputError(f"SLURM_STEP_NUM_TASKS={tasks}: {', '.join(missing)} not set; srun sets all of them")
    rank, local_rank, node, job, step = (number or 0 for number in numbers.values())
    tasks_per_node = _parse_task_counts(texts["SLURM_STEP_TASKS_PER_NODE"] or "")
    if node >= len(tasks_per_node):
        counts = f"SLURM_STEP_TASKS_PER_NODE={texts['SLURM_STEP_TASKS_PER_NODE']}"
        raise InputError(f"SLURM_NODEID={node}: is not a node of {counts}; srun sets both")
    first_port, last_port = _PORTS
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(tasks_per_node[node]),
        "MASTER_ADDR": _first_host(texts["SLURM_STEP_NODELIST"] or ""),
        "MASTER_PORT": str(first_port + (job * 7 + step) % (last_port - first_port)),
    }
    for name, value in variables.items():
        environment[name] = environment.get(name) or value


def _first_host(hosts: str) -> str:
    """Return the first host of a Slurm node list: ``gpu03`` for ``gpu[03-05,9],login``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", hosts)[0])


def _parse_task_counts(text: str) -> list[int]:
    """Return the number of tasks per node: ``[2, 2, 2, 1]`` for ``2(x3),1``."""
    counts: list[int] = []
    for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(repeats or 1)
    return counts
