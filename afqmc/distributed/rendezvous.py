"""Out-of-band communication between the ranks of one run: job hand-off and exit reports.

A launcher (torchrun, ``accelerate launch``, srun) starts the same command several times. Rank 0 composes the config,
creates the run directory and sends the job to the others. They communicate over PyTorch's rendezvous store, which
exists before the process group and outlives it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from afqmc.distributed.rank import Rank, current_rank
from afqmc.utils.errors import InputError, first_line

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

RENDEZVOUS_TIMEOUT_S = 600  # for all ranks to connect, and for the job from rank 0
REPORT_TIMEOUT_S = 5.0  # for the exit report of another rank
SIGNAL_TIMEOUT_S = 2.0  # the same if this rank received a signal: all ranks get it at about the same time
_COMMUNICATION = ("gloo", "nccl", "processgroup", "connection closed", "connection reset", "broken pipe", "tcpstore")


class RankError(RuntimeError):
    """Another rank failed or is unreachable. The message names it."""


class Coordinator:
    """Exchanges messages between the ranks of a run over the rendezvous store; does nothing with a single process.

    Keys of the store: ``address/RANK`` (host and process id, set on connecting), ``job`` (from rank 0),
    ``received/RANK`` (the job has arrived), ``exit/RANK`` (the exit report).

    Args:
        rank: The rank of this process.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self._store: Store | None = None
        self._has_published = False
        self._since = time.monotonic()

    @property
    def store(self) -> Store:
        """The rendezvous store, connected on first use. Keys are prefixed with the elastic restart count."""
        if self._store is None:
            from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            try:
                store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=RENDEZVOUS_TIMEOUT_S)))
            except Exception as error:
                raise RankError(
                    f"{self._this}: cannot connect to the rendezvous at {address} within {RENDEZVOUS_TIMEOUT_S} s"
                ) from error
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = PrefixStore(f"afqmc/{restart}", store)
            self._store.set(f"address/{self.rank.rank}", json.dumps([platform.node(), os.getpid()]))
        return self._store

    def publish(self, job: dict[str, Any]) -> None:
        """Send the job from rank 0 to the other ranks, once."""
        if self.rank.is_single or self._has_published:
            return
        self._has_published = True
        self.store.set("job", json.dumps(job))

    def dismiss_workers(self) -> None:
        """Tell the other ranks that there is no job, unless one was published."""
        if self.rank.is_single or self._has_published:
            return
        self.publish({})
        with suppress(Exception):  # a rank may have exited already
            self.store.wait([f"received/{rank}" for rank in self._others()], timedelta(seconds=REPORT_TIMEOUT_S))

    def receive(self) -> dict[str, Any]:
        """Wait for the job from rank 0; empty if there is none.

        Raises:
            RankError: when it does not arrive in time.
        """
        if not self._wait_for("job"):
            raise RankError(f"{self._this}: received nothing from rank 0 within {RENDEZVOUS_TIMEOUT_S} s")
        job = dict(json.loads(self.store.get("job")))
        self.store.set(f"received/{self.rank.rank}", "")
        return job

    def wait_for_all(self) -> None:
        """Wait until all ranks have connected.

        Raises:
            RankError: naming those that did not.
        """
        missing = [rank for rank in self._others() if not self._wait_for(f"address/{rank}")]
        if missing:
            raise RankError(f"rank {', '.join(map(str, missing))}: did not connect within {RENDEZVOUS_TIMEOUT_S} s")

    def report_exit(self, error: BaseException | None) -> None:
        """Write how this rank ended into the store, for ``root_cause`` of the other ranks."""
        if self.rank.is_single or self._store is None:
            return
        kind = "done" if error is None else _kind(error)
        message = "" if error is None else (str(error) if kind == "refused" else f"{type(error).__name__}: {error}")
        with suppress(Exception):  # the rank that hosts the store may be gone or unreachable
            self._store.set_timeout(timedelta(seconds=REPORT_TIMEOUT_S))
            self._store.set(f"exit/{self.rank.rank}", json.dumps([kind, message]))

    def root_cause(self, error: BaseException) -> BaseException:
        """Return the error that ended the run: ``error``, or the error of another rank that led to it.

        When a rank fails, the others get communication errors, or a signal from the launcher.
        """
        is_consequence = isinstance(error, KeyboardInterrupt) or _kind(error) == "lost"
        if self.rank.is_single or self._store is None or not is_consequence:
            return error
        reports = self._exit_reports(SIGNAL_TIMEOUT_S if isinstance(error, KeyboardInterrupt) else REPORT_TIMEOUT_S)
        for rank, (kind, message) in sorted(reports.items()):
            if kind == "refused":
                return InputError(message)
            if kind == "failed":
                return RankError(f"{self._describe(rank)} failed: {message}")
        if isinstance(error, KeyboardInterrupt):
            lost = [rank for rank in self._others() if rank not in reports and self._is_dead(rank)]
        elif any(kind == "terminated" for kind, _ in reports.values()):
            from afqmc.utils.signals import Terminated

            return Terminated()
        else:
            lost = [rank for rank in self._others() if rank not in reports]
        if lost:
            ranks = " and ".join(map(self._describe, lost))
            return RankError(f"{ranks}: killed, disconnected or stuck ({_shorten(error)})")
        return error

    @property
    def _this(self) -> str:
        return f"rank {self.rank.rank} of {self.rank.world_size}"

    def _others(self) -> list[int]:
        return [rank for rank in range(self.rank.world_size) if rank != self.rank.rank]

    def _wait_for(self, key: str) -> bool:
        """Wait for a key until the rendezvous timeout. The store's own wait would block signal handlers."""
        store = self.store
        while not store.check([key]):
            if time.monotonic() - self._since > RENDEZVOUS_TIMEOUT_S:
                return False
            time.sleep(0.05)
        return True

    def _exit_reports(self, timeout: float) -> dict[int, tuple[str, str]]:
        """Return kind and message of the other ranks' exit reports, waiting until all that are alive have reported."""
        deadline, reports = time.monotonic() + timeout, dict[int, tuple[str, str]]()
        assert self._store is not None
        with suppress(Exception):  # the rank that hosts the store may be gone
            while True:
                for rank in self._others():
                    if rank not in reports and self._store.check([f"exit/{rank}"]):
                        kind, message = json.loads(self._store.get(f"exit/{rank}"))
                        reports[rank] = (kind, message)
                silent = [rank for rank in self._others() if rank not in reports]
                if all(map(self._is_dead, silent)) or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        return reports

    def _address(self, rank: int) -> tuple[str, int]:
        """Return host and process id of another rank."""
        assert self._store is not None
        try:
            host, process = json.loads(self._store.get(f"address/{rank}"))
        except Exception:  # the rank that hosts the store may be gone
            return "unknown", 0
        return host, process

    def _describe(self, rank: int) -> str:
        host, process = self._address(rank)
        return f"rank {rank} (process {process} on {host})"

    def _is_dead(self, rank: int) -> bool:
        """Return whether the process of another rank has ended; False if it runs on another host."""
        host, process = self._address(rank)
        if host != platform.node() or process == 0:
            return False
        try:
            os.kill(process, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False


def _kind(error: BaseException) -> str:
    """Classify an error: ``terminated``, ``refused`` (invalid input), ``lost`` (communication) or ``failed``."""
    if isinstance(error, KeyboardInterrupt):
        return "terminated"
    if isinstance(error, InputError):  # one that wraps a communication error says nothing about the input
        return "lost" if isinstance(error.__cause__, Exception) and _kind(error.__cause__) == "lost" else "refused"
    text = f"{type(error).__module__} {type(error).__name__} {error}".lower()
    is_lost = isinstance(error, RankError) or type(error).__name__.startswith("Dist")
    is_lost = is_lost or (isinstance(error, RuntimeError) and any(word in text for word in _COMMUNICATION))
    return "lost" if is_lost else "failed"


def _shorten(error: BaseException) -> str:
    """Return the first sentence of a library's error, without its source file and line."""
    return re.sub(r"\[/[^]]*\] ", "", first_line(error)).split(". ")[0][:200]


@cache
def get_coordinator() -> Coordinator:
    """Return the coordinator of this process."""
    return Coordinator(current_rank())
