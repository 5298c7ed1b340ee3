"""Train, evaluate, remember the best: a generator of events, so that who writes and who shows stay outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afqmc.batching.batches import Batch, TrainBatches
from afqmc.evaluation import Evaluation
from afqmc.train.config import TrainerConfig
from afqmc.train.step import NonFiniteLossError, Step


@dataclass(frozen=True)
class Stepped:
    """After each optimizer step.

    Attributes:
        step: Counted from 1.
        epoch: Passes over the training pairs so far.
        batch: What it was taken over.
        seconds: From the making of the batch to the end of the step.
        lr: The step's learning rate; None where reading it would make the host wait for the device.
        loss: Mean since the last row; None likewise.
        speed: Pairs a second since the last row.
        metrics: A row of figures, every ``log_steps`` and at the last step.
    """

    step: int
    epoch: float
    batch: Batch
    seconds: float
    lr: float | None
    loss: float | None
    speed: float
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class Evaluated:
    """After each evaluation; ``is_best`` when the monitored metric is the best so far."""

    step: int
    epoch: float
    evaluation: Evaluation
    is_best: bool


@dataclass(frozen=True)
class Stopped:
    """Early stopping ended the training."""

    step: int
    epoch: float
    evaluations: int


Event = Stepped | Evaluated | Stopped


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


def fit(
    step: Step,
    batches: TrainBatches,
    evaluate: Callable[[nn.Module], Evaluation],
    config: TrainerConfig,
    durations: Durations,
) -> Iterator[Event]:
    """Run the training, yielding what happens as it happens.

    Args:
        step: Takes an optimizer step over a batch.
        batches: The batches of each epoch.
        evaluate: Scores the model on dev.
        config: Of the trainer.
        durations: Its durations in steps.

    Yields:
        ``Stepped`` after each optimizer step, ``Evaluated`` after each evaluation, at most one ``Stopped``.

    Raises:
        NonFiniteLossError: when the loss stops being a number; no step was taken with it.
    """
    best = Best(config.monitor.removeprefix("dev/"), config.higher_is_better, config.min_delta)
    window = _Window(step)
    number = 0
    step.model.train()
    while number < durations.total:
        window.resume()
        for batch in batches.epoch(number // durations.epoch):
            number += 1
            epoch = number / durations.epoch
            yield window.step(batch, number, epoch, durations.is_time(number, durations.log))
            if durations.is_time(number, durations.evaluate):
                evaluation = evaluate(step.model)
                yield Evaluated(number, epoch, evaluation, best.update(evaluation.metrics[best.monitor]))
                if config.patience is not None and best.waited >= config.patience:
                    yield Stopped(number, epoch, best.waited)
                    return
            if number >= durations.total:
                return
            window.resume()


class _Window:
    """Steps, timed, and their running figures since the last row of the log.

    The losses are summed on the device and read when a row is due; on a CPU, where reading costs nothing, always.
    """

    def __init__(self, step: Step) -> None:
        self.take, self.device = step, step.accelerator.device
        self.clock = 0.0
        self._empty()

    def _empty(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.norm: Tensor | None = None
        self.steps, self.pairs, self.seconds = 0, 0, 0.0

    def resume(self) -> None:
        """The clock runs from here: a batch is being made."""
        self.clock = time.perf_counter()

    def step(self, batch: Batch, number: int, epoch: float, logged: bool) -> Stepped:
        """Take a step and count it."""
        lr = self.take.lr if logged or self.device.type == "cpu" else None
        loss, self.norm = self.take(batch.to(self.device), number)
        self.loss += loss
        self.steps += 1
        self.pairs += len(batch)
        mean = self._read(number) if logged or self.device.type == "cpu" else None
        seconds = time.perf_counter() - self.clock
        self.seconds += seconds
        speed, metrics = self.pairs / self.seconds, None
        if logged:
            assert mean is not None
            assert lr is not None
            metrics = {"train/loss": mean, "train/lr": lr, "train/pairs_per_second": speed}
            metrics |= {} if self.norm is None else {"train/grad_norm": float(self.norm)}
            self._empty()
        return Stepped(number, epoch, batch, seconds, lr, mean, speed, metrics)

    def _read(self, number: int) -> float:
        mean = self.loss.item() / self.steps
        if not math.isfinite(mean):
            bad = int(self.take.guard.first_bad.item()) or number
            raise NonFiniteLossError(f"the loss became {mean} at step {bad}, no step was taken from there on")
        return mean
