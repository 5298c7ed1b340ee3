"""Which measurements there are, and of what size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Training pairs of a measurement: the tutorial's two passes take well under a minute on 2 cores at 250 GFLOP/s.
TRAIN_PAIRS = {"base": 192, "small": 1024}
FEW_PAIRS, SMALL_BATCH = 2, 8  # of batches up to 8 a pass has enough steps with half the pairs
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
    """One row to be: what is measured, and all that a process needs to measure it.

    Attributes:
        kind: train, eval, start, sweep, command or floor.
        model: base or small.
        contestant: Whose code runs; for a sweep and a command, which way of running it.
        round: Counted from 0.
        sizes: Of the work.
        fresh: Start with an empty cache.
    """

    kind: str
    model: str
    contestant: str
    round: int
    sizes: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False

    @property
    def label(self) -> dict[str, Any]:
        """How its row begins."""
        found = {"kind": self.kind, "model": self.model, "contestant": self.contestant, "round": self.round}
        return found | ({"batch_size": self.sizes["batch_size"]} if self.kind == "train" else {})


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    kinds: list[str]
    models: list[str]
    batch_sizes: list[int]
    contestants: list[str]
    rounds: int
    quick: bool = False
    pairs: int | None = None

    def measurements(self) -> Iterator[Measurement]:
        """All of them, the contestants of a table taking turns within each round."""
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
        """Pairs in whole batches."""
        pairs = self.pairs or self._scaled(TRAIN_PAIRS[model]) // (FEW_PAIRS if batch_size <= SMALL_BATCH else 1)
        return {"batch_size": batch_size, "pairs": max(pairs // batch_size, 2) * batch_size}

    def _scaled(self, pairs: int) -> int:
        return pairs // QUICK_DIVISOR if self.quick else pairs

    def _turns(self, kind: str, model: str, sizes: dict[str, Any]) -> Iterator[Measurement]:
        for number in range(self.rounds):
            for contestant in rotated(self.contestants, number):
                yield Measurement(kind, model, contestant, number, sizes)

    def _starts(self) -> Iterator[Measurement]:
        """From the start of the process to the end of the first step, over all pairs; commands that train nothing."""
        sizes = {"pairs": self._scaled(ALL_PAIRS), "batch_size": 32, "max_steps": 1}
        for number in range(self.rounds):
            for contestant in rotated(self.contestants, number):
                yield Measurement("start", "small", contestant, number, sizes, fresh=True)
                if contestant == "afqmc":
                    yield Measurement("start", "small", contestant, number, sizes)  # the same data again
        for number in range(COMMAND_REPEATS):
            yield from (Measurement("command", "", name, number) for name in COMMANDS)

    def _sweeps(self) -> Iterator[Measurement]:
        sizes = {"pairs": self._scaled(SWEEP_PAIRS), "batch_size": 32}
        for number in range(self.rounds):
            for way in rotated(["one process", "two, 1 thread each", "two, all threads each"], number):
                yield Measurement("sweep", "small", way, number, sizes)


def rotated(names: list[str], by: int) -> list[str]:
    """Another one goes first each round."""
    by %= len(names)
    return names[by:] + names[:by]
