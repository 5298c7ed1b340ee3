"""Train, evaluate, remember the best: a generator of events, so that who writes and who shows stay outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from afqmc.batching.batches import Batch, TrainBatches
from afqmc.evaluation import Evaluation
from afqmc.train.config import TrainerConfig


@dataclass(frozen=True)
class Stepped:
    """After each optimizer step; ``metrics`` is there every ``log_steps`` and at the last step."""

    step: int
    epoch: float
    pairs: int
    seconds: float
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


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the optimizer did not take that step."""


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


class Loss:
    """Cross-entropy, mean over the whole batch also when it is worked through in parts.

    With class weights it is the weighted mean, as ``torch.nn.CrossEntropyLoss`` has it.
    """

    def __init__(self, smoothing: float, class_weights: Tensor | None) -> None:
        self.smoothing, self.class_weights = smoothing, class_weights

    def weight_of(self, labels: Tensor) -> Tensor | int:
        """What the sum over a batch is divided by."""
        return len(labels) if self.class_weights is None else self.class_weights[labels].sum()

    def __call__(self, logits: Tensor, labels: Tensor, divisor: Tensor | int) -> Tensor:
        """The part's share of the batch's mean loss."""
        total = F.cross_entropy(
            logits.float(), labels, weight=self.class_weights, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / divisor


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """``n / (classes * count)`` for each class, as scikit-learn's ``balanced``."""
    return [sum(counts) / (len(counts) * max(count, 1)) for count in counts]


def fit(
    model: nn.Module,
    batches: TrainBatches,
    evaluate: Callable[[nn.Module], Evaluation],
    optimizer: Optimizer,
    scheduler: LRScheduler,
    accelerator: Accelerator,
    config: TrainerConfig,
    durations: Durations,
    loss: Loss,
) -> Iterator[Event]:
    """Run the training, yielding what happens as it happens.

    Args:
        model: On its device, prepared by the accelerator, as is ``optimizer``.
        batches: The batches of each epoch.
        evaluate: Scores the model on dev.
        optimizer: Over the model's parameters.
        scheduler: Stepped once an optimizer step.
        accelerator: Device, precision and gradient synchronisation.
        config: Of the trainer.
        durations: Its durations in steps.
        loss: From logits and labels to a scalar.

    Yields:
        ``Stepped`` after each optimizer step, ``Evaluated`` after each evaluation, at most one ``Stopped``.

    Raises:
        NonFiniteLossError: before the optimizer would have used it.
    """
    best = Best(config.monitor.removeprefix("dev/"), config.higher_is_better, config.min_delta)
    window = _Window()
    step = 0
    model.train()
    while step < durations.total:
        clock = time.perf_counter()
        for batch in batches.epoch(step // durations.epoch):
            lr = optimizer.param_groups[0]["lr"]
            value, norm = _step(model, batch.to(accelerator.device), optimizer, scheduler, accelerator, config, loss)
            step += 1
            epoch = step / durations.epoch
            if not math.isfinite(value):
                raise NonFiniteLossError(f"loss is {value} at step {step} (lr {lr:g}; batch ids {batch.ids[:8]})")
            seconds = time.perf_counter() - clock
            window.add(value, len(batch), seconds)
            logged = durations.is_time(step, durations.log)
            yield Stepped(step, epoch, len(batch), seconds, window.read(lr, norm) if logged else None)
            if durations.is_time(step, durations.evaluate):
                evaluation = evaluate(model)
                yield Evaluated(step, epoch, evaluation, best.update(evaluation.metrics[best.monitor]))
                if config.patience is not None and best.waited >= config.patience:
                    yield Stopped(step, epoch, best.waited)
                    return
            if step >= durations.total:
                return
            clock = time.perf_counter()


def _step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    accelerator: Accelerator,
    config: TrainerConfig,
    loss: Loss,
) -> tuple[float, float | None]:
    """One optimizer step over a batch, in parts; the mean loss, and the gradients' norm where it is limited."""
    parts = batch.split(config.gradient_accumulation_steps)
    assert batch.labels is not None
    divisor = loss.weight_of(batch.labels)
    total = 0.0
    for number, part in enumerate(parts, 1):
        with accelerator.no_sync(model) if number < len(parts) else nullcontext():
            share = loss(model(**part.inputs), part.labels, divisor)  # type: ignore[arg-type]
            total += share.item()
            if not math.isfinite(total):
                return total, None
            accelerator.backward(share)
    norm = None
    if config.max_grad_norm is not None:
        norm = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
    optimizer.step()
    if not accelerator.optimizer_step_was_skipped:  # fp16 skips one when its gradients overflow
        scheduler.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


class _Window:
    """The running figures since the last row of the log."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.pairs, self.seconds = 0, 0.0

    def add(self, loss: float, pairs: int, seconds: float) -> None:
        """Count a step."""
        self.losses.append(loss)
        self.pairs += pairs
        self.seconds += seconds

    def read(self, lr: float, norm: float | None) -> dict[str, float]:
        """The window's means; the next window begins."""
        found = {
            "train/loss": sum(self.losses) / len(self.losses),
            "train/lr": lr,
            "train/pairs_per_second": self.pairs / self.seconds,
        }
        found |= {} if norm is None else {"train/grad_norm": norm}
        self.losses, self.pairs, self.seconds = [], 0, 0.0
        return found
