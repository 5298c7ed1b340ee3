"""How long a training is, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from afqmc.training.config import TrainerConfig
from afqmc.training.events import Stepped


@dataclass(frozen=True)
class Durations:
    """Every duration as optimizer steps, worked out once."""

    total: int
    epoch: int
    evaluate: int
    log: int

    @classmethod
    def of(cls, config: TrainerConfig, steps_per_epoch: int, epochs: int) -> Durations:
        """``max_steps`` replaces epochs; without ``eval_steps`` an evaluation ends each epoch."""
        return cls(
            total=config.max_steps or epochs * steps_per_epoch,
            epoch=steps_per_epoch,
            evaluate=config.eval_steps or steps_per_epoch,
            log=config.log_steps,
        )

    def is_time(self, step: int, every: int) -> bool:
        """Whether something done every so many steps is due after ``step``; the last step counts always."""
        return step % every == 0 or step == self.total


@dataclass
class Best:
    """The monitored metric's best value, and the evaluations since it last improved by more than ``min_delta``."""

    monitor: str
    higher_is_better: bool
    min_delta: float
    value: float = math.nan
    reference: float = math.nan
    waited: int = 0

    def update(self, value: float) -> bool:
        """Whether this evaluation is the best so far; the first one is, a NaN is not."""
        self.waited += 1
        if self._beats(value, self.reference, self.min_delta):
            self.reference, self.waited = value, 0
        if self._beats(value, self.value, 0.0):
            self.value = value
            return True
        return False

    def _beats(self, value: float, other: float, margin: float) -> bool:
        if math.isnan(other):
            return not math.isnan(value)
        return value > other + margin if self.higher_is_better else value < other - margin


@dataclass
class Window:
    """Sums since the last row of the log; the loss of each step is added on the device."""

    loss: Tensor | float = 0.0
    steps: int = 0
    pairs: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Where a training stands: all of it that is not in weights, optimizer, schedule and random generators.

    Attributes:
        step: Optimizer steps taken.
        evaluated: Whether the evaluation that is due after ``step``, if one is, has been done.
        stopped: Whether early stopping has ended it.
        nonfinite: Steps skipped, or rollbacks, for a loss that was not finite.
        lr_factor: What rollbacks have made of the learning rate.
        best: The monitored metric so far.
        window: Running figures since the last row of the log.
    """

    best: Best
    step: int = 0
    evaluated: bool = True
    stopped: bool = False
    nonfinite: int = 0
    lr_factor: float = 1.0
    window: Window = field(default_factory=Window)

    @classmethod
    def at_start(cls, config: TrainerConfig) -> Progress:
        """Nothing is done yet."""
        return cls(Best(config.monitor.removeprefix("dev/"), config.higher_is_better, config.min_delta))


@dataclass
class Totals:
    """Counted so far."""

    padding_free: bool
    pairs: int = 0
    tokens: int = 0
    places: int = 0  # tokens and padding
    seconds: float = 0.0

    def add(self, event: Stepped) -> None:
        """Count a step."""
        self.pairs += len(event.batch)
        self.tokens += event.batch.tokens
        self.places += event.batch.tokens if self.padding_free else event.batch.places
        self.seconds += event.seconds
