"""The list of measurements and their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Training pairs per measurement; the tutorial's two passes take well under a minute on 2 cores at 250 GFLOP/s.
TRAIN_PAIRS = {"base": 192, "small": 1024}
SMALL_BATCH, SMALL_BATCH_DIVISOR = 8, 2  # with batches up to 8, half the pairs give enough steps
EVAL_PAIRS = {"base": 192, "small": 2048}
ALL_PAIRS = 34334  # AFQMC's training split
SWEEP_PAIRS = 1024
SWEEP_RUNS = 4
KINDS = ("train", "eval", "start", "sweep", "floor")
COMMANDS = {"--help": ["--help"], "--cfg job": ["--cfg", "job"]}
COMMAND_REPEATS = 5
QUICK_DIVISOR = 16


@dataclass(frozen=True)
class Measurement:
    """A measurement, which becomes one row of the raw file.

    Attributes:
        kind: train, eval, start, sweep, command or floor.
        model: base or small.
        contestant: Whose code runs. For a sweep or a command, the way in which it runs.
        round: Index of the round, from 0.
        sizes: Arguments of ``Work``, such as ``pairs`` and ``batch_size``.
        fresh: Whether to start with an empty cache.
    """

    kind: str
    model: str
    contestant: str
    round: int
    sizes: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False

    @property
    def label(self) -> dict[str, Any]:
        """The first entries of the row."""
        label = {"kind": self.kind, "model": self.model, "contestant": self.contestant, "round": self.round}
        return label | ({"batch_size": self.sizes["batch_size"]} if self.kind == "train" else {})


@dataclass(frozen=True)
class Plan:
    """The measurements that the command line requests."""

    kinds: list[str]
    models: list[str]
    batch_sizes: list[int]
    contestants: list[str]
    rounds: int
    quick: bool = False
    pairs: int | None = None

    def measurements(self) -> Iterator[Measurement]:
        """Yield all measurements. Contestants take turns within each round."""
        if "floor" in self.kinds:
            yield from (Measurement("floor", model, "", 0) for model in self.models)
        if "train" in self.kinds:
            for model in self.models:
                for batch_size in self.batch_sizes:
                    yield from self._turns("train", model, self.train_sizes(model, batch_size))
        if "eval" in self.kinds:
            for model in self.models:
                yield from self._turns("eval", model, {"eval_pairs": self._scaled(EVAL_PAIRS[model])})
        if "start" in self.kinds:
            yield from self._starts()
        if "sweep" in self.kinds:
            yield from self._sweeps()

    def train_sizes(self, model: str, batch_size: int) -> dict[str, int]:
        """Return batch size and pairs of a training; the pairs fill whole batches."""
        pairs = self.pairs or self._scaled(TRAIN_PAIRS[model]) // (
            SMALL_BATCH_DIVISOR if batch_size <= SMALL_BATCH else 1
        )
        return {"batch_size": batch_size, "pairs": max(pairs // batch_size, 2) * batch_size}

    def _scaled(self, pairs: int) -> int:
        return pairs // QUICK_DIVISOR if self.quick else pairs

    def _turns(self, kind: str, model: str, sizes: dict[str, Any]) -> Iterator[Measurement]:
        for index in range(self.rounds):
            for contestant in rotated(self.contestants, index):
                yield Measurement(kind, model, contestant, index, sizes)

    def _starts(self) -> Iterator[Measurement]:
        """Yield starts (until the end of the first step, with all pairs loaded), and commands that do not train."""
        sizes = {"pairs": self._scaled(ALL_PAIRS), "batch_size": 32, "max_steps": 1}
        for index in range(self.rounds):
            for contestant in rotated(self.contestants, index):
                yield Measurement("start", "small", contestant, index, sizes, fresh=True)
                if contestant == "afqmc":
                    yield Measurement("start", "small", contestant, index, sizes)  # again, with a warm cache
        for index in range(COMMAND_REPEATS):
            yield from (Measurement("command", "", name, index) for name in COMMANDS)

    def _sweeps(self) -> Iterator[Measurement]:
        sizes = {"pairs": self._scaled(SWEEP_PAIRS), "batch_size": 32}
        for index in range(self.rounds):
            for way in rotated(["one process", "two, 1 thread each", "two, all threads each"], index):
                yield Measurement("sweep", "small", way, index, sizes)


def rotated(names: list[str], by: int) -> list[str]:
    """Return the names rotated, so that another one comes first in each round."""
    by %= len(names)
    return names[by:] + names[:by]
