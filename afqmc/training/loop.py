"""The training loop: a generator of events, which knows nothing of files, progress bars and trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from afqmc.data.batching import Batch, TrainLoader
from afqmc.evaluation.evaluator import Evaluation
from afqmc.training.events import EvaluationEnd, Event, StepEnd, StepSkipped
from afqmc.training.nonfinite import NonFiniteLossError
from afqmc.training.state import LogWindow, StepIntervals, TrainState
from afqmc.training.step import TrainStep

Evaluate = Callable[[nn.Module], Evaluation]


def train(
    step: TrainStep,
    batches: TrainLoader,
    evaluate: Evaluate,
    intervals: StepIntervals,
    state: TrainState,
    max_skipped: int = 0,
) -> Iterator[Event]:
    """Run the training from where ``state`` stands, and yield what happens.

    Whenever an event is yielded, and while ``evaluate`` runs, ``state`` is consistent with the model and optimizer in
    ``step``: a checkpoint of both can be taken, and a training restored from it continues bit for bit.

    Args:
        step: Takes an optimizer step over a batch.
        batches: The batches of each epoch.
        evaluate: Evaluates the model on dev.
        intervals: Of the training.
        state: Updated in place.
        max_skipped: Steps that may be skipped for a loss that is not finite.

    Yields:
        ``StepEnd`` or ``StepSkipped`` after each step, ``EvaluationEnd`` after each evaluation.

    Raises:
        NonFiniteLossError: when the loss is not finite and may not be skipped; the step was not taken.
        BatchOutOfMemoryError: when a batch does not fit.
    """
    timer = _StepTimer(step, state, intervals)
    step.model.train()
    yield from _evaluation(step, evaluate, intervals, state)  # of a checkpoint saved before its evaluation was done
    timer.start()
    for batch in _remaining_batches(batches, intervals, state):
        next_step = state.step + 1
        lr = timer.lr(next_step)
        try:
            loss, norm = step(batch.to(timer.device), next_step)
        except NonFiniteLossError as error:
            if state.nonfinite >= max_skipped:
                raise
            state.nonfinite += 1
            step.skip()
            _advance(state, intervals)
            yield StepSkipped(next_step, next_step / intervals.epoch, error)
        else:
            _advance(state, intervals)
            yield timer.stop(batch, lr, loss, norm)
        yield from _evaluation(step, evaluate, intervals, state)
        timer.start()


def _advance(state: TrainState, intervals: StepIntervals) -> None:
    state.step += 1
    state.evaluated = not intervals.is_due(state.step, intervals.evaluate)


def _remaining_batches(batches: TrainLoader, intervals: StepIntervals, state: TrainState) -> Iterator[Batch]:
    """Yield the remaining batches. ``state.step`` must be advanced between them."""
    while state.step < intervals.total and not state.stopped:
        epoch, done = divmod(state.step, intervals.epoch)
        for batch in batches.epoch(epoch, done):
            yield batch
            if state.step >= intervals.total or state.stopped:
                return


def _evaluation(
    step: TrainStep, evaluate: Evaluate, intervals: StepIntervals, state: TrainState
) -> Iterator[EvaluationEnd]:
    """Evaluate if an evaluation is due after this step and has not been done."""
    if state.evaluated:
        return
    evaluation = evaluate(step.model)
    is_best = state.best.update(evaluation.metrics[state.best.monitor])
    state.evaluated = True
    yield EvaluationEnd(state.step, state.step / intervals.epoch, evaluation, is_best)


class _StepTimer:
    """Times steps, and sums their losses and pairs for the next row of metrics.

    Losses are summed on the device and read when a row is due; on a CPU, where reading costs nothing, after each step.
    """

    def __init__(self, step: TrainStep, state: TrainState, intervals: StepIntervals) -> None:
        self.step, self.state, self.intervals = step, state, intervals
        self.device = step.accelerator.device
        self.started = 0.0
        self.pending_ids: dict[int, list[int | str]] = {}  # of the batches whose losses have not been read yet

    def start(self) -> None:
        """Start the clock, before the next batch is collated."""
        self.started = time.perf_counter()

    def lr(self, step: int) -> float | None:
        """Return the learning rate of a step; None where reading it would make the host wait."""
        is_read = self.device.type == "cpu" or self.intervals.is_due(step, self.intervals.log)
        return self.step.lr if is_read else None

    def stop(self, batch: Batch, lr: float | None, loss: Tensor, norm: Tensor | None) -> StepEnd:
        """Stop the clock, and return the step's event."""
        state, window = self.state, self.state.window
        self.pending_ids[state.step] = batch.ids
        window.loss = window.loss + loss
        window.steps += 1
        window.pairs += len(batch)
        mean = None if lr is None else self._mean_loss(lr)
        seconds = time.perf_counter() - self.started
        window.seconds += seconds
        speed, metrics = window.pairs / window.seconds, None
        if self.intervals.is_due(state.step, self.intervals.log):
            assert mean is not None
            assert lr is not None
            metrics = {"train/loss": mean, "train/lr": lr, "train/pairs_per_second": speed}
            metrics |= {} if norm is None else {"train/grad_norm": float(norm)}
            state.window = LogWindow()
        return StepEnd(state.step, state.step / self.intervals.epoch, batch, seconds, lr, mean, speed, metrics)

    def _mean_loss(self, lr: float) -> float:
        """Return the mean loss since the last row of metrics; check that every loss since then was finite.

        Raises:
            NonFiniteLossError: naming the first step that was not taken.
        """
        step, window = self.state.step, self.state.window
        mean = float(window.loss) / window.steps
        bad_step = self.step.guard.first_bad_step() or (0 if math.isfinite(mean) else step)
        if bad_step:
            kind = "NaN" if math.isnan(mean) else "infinite"
            ids = self.pending_ids.get(bad_step, [])
            raise NonFiniteLossError(
                f"the loss or the gradients became {kind}; no step was taken", bad_step, lr, mean, ids
            )
        self.pending_ids.clear()
        return mean
