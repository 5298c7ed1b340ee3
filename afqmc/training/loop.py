"""Train, evaluate, remember the best: a generator of events, so that who writes and who shows stay outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from torch import nn

from afqmc.data.batching import Batch, TrainBatches
from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.config import NonFinite, TrainerConfig
from afqmc.training.events import Evaluated, Event, Skipped, Stepped, Stopped
from afqmc.training.state import Durations, Progress, Window
from afqmc.training.step import NonFiniteLossError, Step


def fit(
    step: Step,
    batches: TrainBatches,
    evaluate: Callable[[nn.Module], Evaluation],
    config: TrainerConfig,
    durations: Durations,
    progress: Progress,
) -> Iterator[Event]:
    """Run the training from where it stands, yielding what happens as it happens.

    Whenever something is yielded, and while ``evaluate`` runs, ``progress`` and what ``step`` holds fit together:
    a training that is put back to them goes on as if nothing had been.

    Args:
        step: Takes an optimizer step over a batch.
        batches: The batches of each epoch.
        evaluate: Scores the model on dev.
        config: Of the trainer.
        durations: Its durations in steps.
        progress: Where it stands; kept up to date.

    Yields:
        ``Stepped`` or ``Skipped`` after each step, ``Evaluated`` after each evaluation, at most one ``Stopped``.

    Raises:
        NonFiniteLossError: when the loss stops being a number and may not be skipped; no step was taken with it.
        MemoryShortageError: when a batch does not fit.
    """
    timed = _Timed(step, progress, config)
    step.model.train()
    yield from _evaluation(step, evaluate, config, durations, progress)  # which an interruption cut short
    timed.resume()
    for batch in _remaining(batches, durations, progress):
        yield timed.step(batch, durations)
        yield from _evaluation(step, evaluate, config, durations, progress)
        timed.resume()


def _remaining(batches: TrainBatches, durations: Durations, progress: Progress) -> Iterator[Batch]:
    """The batches to come; each is asked for when the step before it has been counted."""
    while progress.step < durations.total and not progress.stopped:
        epoch, done = divmod(progress.step, durations.epoch)
        for batch in batches.epoch(epoch, done):
            yield batch
            if progress.step >= durations.total or progress.stopped:
                return


def _evaluation(
    step: Step,
    evaluate: Callable[[nn.Module], Evaluation],
    config: TrainerConfig,
    durations: Durations,
    progress: Progress,
) -> Iterator[Event]:
    """The evaluation after this step, where one is due and not done."""
    if progress.evaluated:
        return
    evaluation = evaluate(step.model)
    number, best = progress.step, progress.best
    is_best = best.update(evaluation.metrics[best.monitor])
    progress.evaluated = True
    progress.stopped = config.patience is not None and best.waited >= config.patience
    yield Evaluated(number, number / durations.epoch, evaluation, is_best)
    if progress.stopped:
        yield Stopped(number, number / durations.epoch, best.waited)


class _Timed:
    """Steps, timed, and their running figures since the last row of the log.

    The losses are summed on the device and read when a row is due; on a CPU, where reading costs nothing, always.
    """

    def __init__(self, step: Step, progress: Progress, config: TrainerConfig) -> None:
        self.take, self.device, self.progress = step, step.accelerator.device, progress
        self.skips = config.max_nonfinite if config.on_nonfinite is NonFinite.skip else 0
        self.clock = 0.0
        self.unread: dict[int, list[int | str]] = {}  # ids of the batches whose losses nobody has looked at yet

    def resume(self) -> None:
        """The clock runs from here: a batch is being made."""
        self.clock = time.perf_counter()

    def step(self, batch: Batch, durations: Durations) -> Stepped | Skipped:
        """Take a step and count it."""
        progress, window = self.progress, self.progress.window
        number = progress.step + 1
        logged = durations.is_time(number, durations.log)
        read = logged or self.device.type == "cpu"
        lr = self.take.lr if read else None
        try:
            loss, norm = self.take(batch.to(self.device), number)
        except NonFiniteLossError as error:
            if progress.nonfinite >= self.skips:
                raise
            progress.nonfinite += 1
            self.take.skip()
            self._count(number, durations)
            return Skipped(number, number / durations.epoch, error)
        self._count(number, durations)
        self.unread[number] = batch.ids
        window.loss = window.loss + loss
        window.steps += 1
        window.pairs += len(batch)
        mean = None if lr is None else self._read(number, lr)
        seconds = time.perf_counter() - self.clock
        window.seconds += seconds
        speed, metrics = window.pairs / window.seconds, None
        if logged:
            assert mean is not None
            assert lr is not None
            metrics = {"train/loss": mean, "train/lr": lr, "train/pairs_per_second": speed}
            metrics |= {} if norm is None else {"train/grad_norm": float(norm)}
            progress.window = Window()
        return Stepped(number, number / durations.epoch, batch, seconds, lr, mean, speed, metrics)

    def _count(self, number: int, durations: Durations) -> None:
        self.progress.step, self.progress.evaluated = number, not durations.is_time(number, durations.evaluate)

    def _read(self, number: int, lr: float) -> float:
        """The mean loss; where losses are read late, whether all was well since the last look.

        Raises:
            NonFiniteLossError: naming the first step that was not taken.
        """
        window = self.progress.window
        mean = float(window.loss) / window.steps
        bad = self.take.guard.bad_step() or (0 if math.isfinite(mean) else number)
        if bad:
            told = f"the loss or the gradients became {'NaN' if math.isnan(mean) else 'infinite'}; no step was taken"
            raise NonFiniteLossError(told, bad, lr, mean, self.unread.get(bad, []))
        self.unread.clear()
        return mean
