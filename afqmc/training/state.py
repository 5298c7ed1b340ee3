"""The length of a training, its intervals, and its state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from afqmc.training.config import TrainerConfig


@dataclass(frozen=True)
class StepIntervals:
    """The length of a training and its intervals, all in optimizer steps.

    Attributes:
        total: The whole training.
        epoch: One pass over the training pairs.
        evaluate: Between evaluations.
        log: Between rows of metrics.
    """

    total: int
    epoch: int
    evaluate: int
    log: int

    @classmethod
    def of(cls, config: TrainerConfig, steps_per_epoch: int, epochs: int) -> StepIntervals:
        """Return the intervals: ``max_steps`` replaces epochs; without ``eval_steps`` each epoch is evaluated."""
        return cls(
            total=config.max_steps or epochs * steps_per_epoch,
            epoch=steps_per_epoch,
            evaluate=config.eval_steps or steps_per_epoch,
            log=config.logging_steps,
        )

    def is_due(self, step: int, every: int) -> bool:
        """Return whether something done every ``every`` steps is due after ``step``. After the last step it is."""
        return step % every == 0 or step == self.total


@dataclass
class BestTracker:
    """The best value of the monitored metric so far; NaN before there is one."""

    monitor: str
    higher_is_better: bool
    value: float = math.nan

    def update(self, value: float) -> bool:
        """Return whether ``value`` is the best so far. The first one is; NaN never is."""
        if not improves(value, self.value, self.higher_is_better):
            return False
        self.value = value
        return True


def improves(value: float, best: float, higher_is_better: bool, margin: float = 0.0) -> bool:
    """Return whether ``value`` beats ``best`` by more than ``margin``; a number beats NaN, and NaN beats nothing."""
    if math.isnan(best):
        return not math.isnan(value)
    return value > best + margin if higher_is_better else value < best - margin


@dataclass
class LogWindow:
    """Sums since the last row of metrics; losses are added on the device."""

    loss: Tensor | float = 0.0
    steps: int = 0
    pairs: int = 0
    seconds: float = 0.0


@dataclass
class TrainState:
    """The state of a training, apart from weights, optimizer, schedule and random generators.

    Attributes:
        best: The monitored metric so far.
        step: Optimizer steps taken.
        evaluated: False if an evaluation is due after ``step`` and has not been done yet.
        stopped: Whether a callback has ended the training early.
        nonfinite: Number of steps skipped, or of rollbacks, because of a loss that was not finite.
        lr_factor: Product of the factors that rollbacks have applied to the learning rate.
        window: Sums since the last row of metrics.
    """

    best: BestTracker
    step: int = 0
    evaluated: bool = True
    stopped: bool = False
    nonfinite: int = 0
    lr_factor: float = 1.0
    window: LogWindow = field(default_factory=LogWindow)

    @classmethod
    def initial(cls, config: TrainerConfig) -> TrainState:
        """Return the state before the first step."""
        return cls(BestTracker(config.monitor.removeprefix("dev/"), config.higher_is_better))


@dataclass
class Throughput:
    """Work done so far, for the speed and the share of padding in the summary.

    Attributes:
        tokens: Without padding.
        padded_tokens: Computed, padding included.
        seconds: In optimizer steps, evaluations left out.
    """

    pairs: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
