"""What the processes of one run tell each other outside of the computation.

A launcher (torchrun, ``accelerate launch``, srun) starts the same command several times. Rank 0 alone composes the
config, makes the run directory and writes; the others are told. They meet in the store of PyTorch's own rendezvous,
which is there before, and beside, the process group that computes.
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

_MEETING_S = 600  # for all processes of a run to come to the rendezvous
_WORDS_S = 5.0  # that a process is waited for to say why it ended
_GLANCE_S = 2.0  # the same where this one was terminated, as the others then were too
_COMMUNICATION = ("gloo", "nccl", "processgroup", "connection closed", "connection reset", "broken pipe", "tcpstore")


class RankError(RuntimeError):
    """Another process of the run failed, or is gone; the message names it."""


class Coordinator:
    """Where the processes of a run leave words for each other; one that is alone needs none.

    Args:
        rank: This process.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self._store: Store | None = None
        self._has_announced = False
        self._since = time.monotonic()

    @property
    def store(self) -> Store:
        """The rendezvous, met at the first use; of a launcher's restarts each has its own words."""
        if self._store is None:
            from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            try:
                found, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=_MEETING_S)))
            except Exception as error:
                told = f"rank {self.rank.number} of {self.rank.size}: the others cannot be met at {place}"
                raise RankError(f"{told} within {_MEETING_S} s") from error
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = PrefixStore(f"afqmc/{restart}", found)
            self._store.set(f"place/{self.rank.number}", json.dumps([platform.node(), os.getpid()]))
        return self._store

    def publish(self, told: dict[str, Any]) -> None:
        """Rank 0 tells the others what is to be done, once."""
        if self.rank.is_single or self._has_announced:
            return
        self._has_announced = True
        self.store.set("announced", json.dumps(told))

    def dismiss_workers(self) -> None:
        """Rank 0 tells the others that there is nothing to do, where it has told them nothing else."""
        if self.rank.is_single or self._has_announced:
            return
        self.publish({})
        with suppress(Exception):  # a process that is gone has heard enough
            self.store.wait([f"heard/{number}" for number in self._others()], timedelta(seconds=_WORDS_S))

    def receive(self) -> dict[str, Any]:
        """What rank 0 has announced; waited for."""
        if not self._come("announced"):
            raise RankError(f"rank {self.rank.number} of {self.rank.size}: rank 0 said nothing within {_MEETING_S} s")
        found = dict(json.loads(self.store.get("announced")))
        self.store.set(f"heard/{self.rank.number}", "")
        return found

    def wait_for_all(self) -> None:
        """Wait for all processes to be there.

        Raises:
            RankError: naming those that did not come.
        """
        missing = [number for number in self._others() if not self._come(f"place/{number}")]
        if missing:
            raise RankError(f"rank {', '.join(map(str, missing))}: did not come within {_MEETING_S} s")

    def _come(self, key: str) -> bool:
        """Wait for a word, hearing signals meanwhile: the store's own waiting lets none through."""
        store = self.store
        while not store.check([key]):
            if time.monotonic() - self._since > _MEETING_S:
                return False
            time.sleep(0.05)
        return True

    def end(self, error: BaseException | None) -> None:
        """Leave word of how this process ended, for whoever asks."""
        if self.rank.is_single or self._store is None:
            return
        kind = "done" if error is None else _kind(error)
        told = "" if error is None else (str(error) if kind == "refused" else f"{type(error).__name__}: {error}")
        try:
            self._store.set_timeout(timedelta(seconds=_WORDS_S))  # whoever holds it may be out of reach
            self._store.set(f"end/{self.rank.number}", json.dumps([kind, told]))
        except Exception:  # whoever held the store is gone
            return

    def root_cause(self, error: BaseException) -> BaseException:
        """What ended the run: the given error, or the one of another process of which it is only the echo."""
        echo = isinstance(error, KeyboardInterrupt) or _kind(error) == "lost"
        if self.rank.is_single or self._store is None or not echo:
            return error
        words = self._words(_GLANCE_S if isinstance(error, KeyboardInterrupt) else _WORDS_S)
        for number, (kind, told) in sorted(words.items()):
            if kind == "refused":
                return InputError(told)
            if kind == "failed":
                return RankError(f"{self._name(number)} failed: {told}")
        if isinstance(error, KeyboardInterrupt):
            gone = [number for number in self._others() if number not in words and self._is_dead(number)]
        elif any(kind == "terminated" for kind, _ in words.values()):
            from afqmc.utils.signals import Terminated

            return Terminated()
        else:
            gone = [number for number in self._others() if number not in words]
        if gone:
            return RankError(f"{' and '.join(map(self._name, gone))}: killed, cut off or stuck ({_short(error)})")
        return error

    def _others(self) -> list[int]:
        return [number for number in range(self.rank.size) if number != self.rank.number]

    def _words(self, patience: float) -> dict[int, tuple[str, str]]:
        """What the others have left, until all have or patience ends; nothing where the store is gone."""
        deadline, words = time.monotonic() + patience, dict[int, tuple[str, str]]()
        assert self._store is not None
        try:
            while True:
                for number in self._others():
                    if number not in words and self._store.check([f"end/{number}"]):
                        kind, told = json.loads(self._store.get(f"end/{number}"))
                        words[number] = (kind, told)
                silent = [number for number in self._others() if number not in words]
                if all(self._is_dead(number) for number in silent) or time.monotonic() > deadline:
                    return words
                time.sleep(0.05)
        except Exception:  # whoever held the store is gone
            return words

    def _place(self, number: int) -> tuple[str, int]:
        assert self._store is not None
        try:
            host, process = json.loads(self._store.get(f"place/{number}"))
        except Exception:  # likewise
            return "unknown", 0
        return host, process

    def _name(self, number: int) -> str:
        host, process = self._place(number)
        return f"rank {number} (process {process} on {host})"

    def _is_dead(self, number: int) -> bool:
        """Of a process on this host."""
        host, process = self._place(number)
        if host != platform.node() or process == 0:
            return False
        try:
            os.kill(process, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False


def _kind(error: BaseException) -> str:
    """``terminated``, ``refused``, ``lost`` where others could not be reached, or ``failed``."""
    if isinstance(error, KeyboardInterrupt):
        return "terminated"
    if isinstance(error, InputError):  # what is told of a file may be the echo of a connection
        return "lost" if isinstance(error.__cause__, Exception) and _kind(error.__cause__) == "lost" else "refused"
    told = f"{type(error).__module__} {type(error).__name__} {error}".lower()
    lost = isinstance(error, RankError) or type(error).__name__.startswith("Dist")
    lost = lost or (isinstance(error, RuntimeError) and any(word in told for word in _COMMUNICATION))
    return "lost" if lost else "failed"


def _short(error: BaseException) -> str:
    told = re.sub(r"\[/[^]]*\] ", "", first_line(error)).split(". ")[0]  # without the library's own file and line
    return told[:200]


@cache
def get_coordinator() -> Coordinator:
    """The one of this process."""
    return Coordinator(current_rank())
