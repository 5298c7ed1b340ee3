"""One run's training: the loop is run, and what it yields is written, shown and kept."""

from __future__ import annotations

import logging
import math
import shutil
import time
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from afqmc.data.batching import TrainBatches
from afqmc.data.loading import Dataset, fingerprint
from afqmc.distributed.collectives import agreed, handed_round, of_all, of_main
from afqmc.evaluation.evaluator import Evaluation
from afqmc.runner.checkpointer import Checkpointer
from afqmc.runner.recorder import Records
from afqmc.runner.setup import Prepared
from afqmc.sweeps.pruning import Judge
from afqmc.training.checkpoint_state import lower_lr, put_back, snapshot
from afqmc.training.config import NonFinite, TrainerConfig
from afqmc.training.events import Evaluated, Event, Skipped, Stepped
from afqmc.training.loop import fit
from afqmc.training.optim import build_optimizer, build_scheduler
from afqmc.training.parallel import spread
from afqmc.training.rng import randomness_kept
from afqmc.training.state import Durations, Progress, Totals
from afqmc.training.step import Loss, NonFiniteLossError, Step, balanced_weights
from afqmc.utils.console import TrainingBar
from afqmc.utils.errors import InputError, Pruned, blamed_on
from afqmc.utils.signals import admit, admitted, pending, put_off, undisturbed

log = logging.getLogger(__name__)


class Training:
    """Begins, or goes on where the last checkpoint leaves off; ``run`` takes it to its end.

    Args:
        prepared: The parts; its model is wrapped here.
        resumed: Whether a run is there, which this one goes on with.
        since: When the run began, by ``time.perf_counter``.
        judge: Of a search: hears of each evaluation, and may end the run.
    """

    def __init__(self, prepared: Prepared, resumed: bool, since: float, judge: Judge | None = None) -> None:
        self.prepared, self.config, self.run_dir = prepared, prepared.config, prepared.run_dir
        trainer = self.config.trainer
        self.since, self.judge = since, judge
        self.ends = False  # agreed among all processes
        self.trained = Totals(trainer.padding_free)
        self.parts = trainer.gradient_accumulation_steps
        with prepared.accelerator.local_main_process_first():  # its kept tokens are then there for the others
            self.batches = self._batches()
            self.dev = prepared.encoder.encode_once(prepared.data.dev)
        self._build()
        self.records = Records(prepared, self.durations.epoch)
        self.progress = Progress.at_start(trainer)
        same = f"{fingerprint(prepared.data)} {prepared.encoder.fingerprint}"
        check_alike(prepared.accelerator, same)
        self.checkpointer = Checkpointer(self.run_dir, trainer, self.durations, same)
        # dropout then does not depend on how the weights came to be; each process has its own
        set_seed(self.config.seed, device_specific=True)
        if resumed:
            self._go_on()

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.progress.step

    def _batches(self) -> TrainBatches:
        config, parts = self.config, self.prepared
        return TrainBatches(parts.data.train, parts.encoder, config.batch_size, config.seed, config.dataset)

    def _build(self) -> None:
        config, trainer, parts = self.config, self.config.trainer, self.prepared
        self.durations = Durations.of(trainer, len(self.batches), config.epochs)
        optimizer = build_optimizer(config.optimizer, parts.model, config.lr)
        scheduler = build_scheduler(config.scheduler, optimizer, self.durations.total, config.lr)
        probe = None if parts.accelerator.num_processes == 1 else next(self.batches.epoch(0)).share(0, 2)[0]
        parts.model, optimizer = spread(parts.model, optimizer, parts.accelerator, probe)
        loss = build_loss(trainer, parts.data, parts.accelerator.device)
        self.take = Step(parts.model, optimizer, scheduler, parts.accelerator, trainer, loss)

    def run(self) -> None:
        """To the end. Signals are admitted between steps and in evaluations; then a checkpoint is made first."""
        bar = TrainingBar(self.durations.total, self.step)
        with undisturbed():
            try:
                self._follow(bar)
            except KeyboardInterrupt:
                self.checkpointer.lenient = True  # no failure to save may hide that somebody wants it gone
                if of_main(self.prepared.accelerator, not self.checkpointer.holds(self.progress)):
                    self.save_state()
                raise
            finally:
                bar.close()
                self.checkpointer.settle()

    def _follow(self, bar: TrainingBar) -> None:
        """The loop, taken up again from the last checkpoint where a loss demands it."""
        trainer = self.config.trainer
        while True:
            try:
                for event in fit(self.take, self.batches, self._score, trainer, self.durations, self.progress):
                    with randomness_kept() if isinstance(event, Evaluated) else nullcontext():
                        self._handle(event, bar)
                    self.checkpointer.look()
                    if self._agree(self.checkpointer.is_due(self.progress)):
                        self.save_state()
                    self._admit()
                return
            except NonFiniteLossError as error:
                back = self._roll_back(error)  # which cuts the rows: its own comes after that
                self.records.nonfinite(error)
                if not back:
                    raise
                self.save_state()

    def _agree(self, is_due: bool = False) -> bool:
        """Whether the main process, whose clock counts, is to save; a signal that came to one has come to all."""
        accelerator = self.prepared.accelerator
        number, due = agreed(accelerator, pending(), is_due and accelerator.is_main_process)
        self.ends = number > 0
        if number:
            put_off(number)
        return bool(due)

    def _score(self, _: nn.Module) -> Evaluation:
        """Dev; an interruption changes nothing. Of several processes none leaves it alone: they agree in between."""
        if self.prepared.accelerator.num_processes > 1:
            with randomness_kept():
                evaluation = self.prepared.score(self.dev, "dev", self._end_together)
        else:
            with randomness_kept(), admitted():
                evaluation = self.prepared.score(self.dev, "dev")
        self._check_logits(evaluation)
        return evaluation

    def _check_logits(self, evaluation: Evaluation) -> None:
        """Stop, roll back or warn where dev pairs have logits that are NaN or infinite, as for such a loss.

        Raises:
            NonFiniteLossError: unless ``trainer.on_nonfinite=skip``.
        """
        told = evaluation.lacking("dev")
        if told is None:
            return
        if self.config.trainer.on_nonfinite is NonFinite.skip:
            log.warning("%s: this evaluation has no metrics and is never the best (trainer.on_nonfinite=skip)", told)
            return
        ids = [self.prepared.data.dev.ids[place] for place in evaluation.without_prediction.tolist()]
        raise NonFiniteLossError(told, self.step, self.take.lr, math.nan, ids, "dev")

    def _end_together(self) -> None:
        self._agree()
        self._admit()

    def _admit(self) -> None:
        """A signal that came to one process since all agreed waits for the next time: none may leave alone."""
        if self.take.size == 1 or self.ends:
            admit()

    def _handle(self, event: Event, bar: TrainingBar) -> None:
        """Write, show and keep what happened; the training draws its random numbers alone."""
        if isinstance(event, Stepped):
            self.trained.add(event)
            bar.step(event.step, event.epoch, event.loss, event.lr, event.speed, event.metrics is not None)
            if event.metrics is not None:
                self.records.row(event.step, event.epoch, event.metrics)
            self._say_parts()
        elif isinstance(event, Evaluated):
            self.records.evaluation(event)
            self._judge(event)
        elif isinstance(event, Skipped):
            self.records.nonfinite(event.error)
            log.warning("%s; this batch is left out (trainer.on_nonfinite=skip)", event.error)
        else:
            trainer = self.config.trainer
            log.info(
                "stopped early at step %d: %s has not improved by more than %g in %d evaluations",
                event.step, trainer.monitor, trainer.min_delta, event.evaluations,
            )  # fmt: skip

    def _judge(self, event: Evaluated) -> None:
        """Of a search: may end the run, of several processes all of them."""
        why: str | None = None
        if self.judge is not None:
            number, is_last = -(-event.step // self.durations.evaluate), event.step == self.durations.total
            why = self.judge(number, event.evaluation.metrics, is_last)
        if told := of_main(self.prepared.accelerator, why):
            raise Pruned(told)

    def _say_parts(self) -> None:
        """Each time that the memory did not suffice."""
        if self.take.parts != self.parts:
            self.parts = self.take.parts
            log.warning("out of memory: the same batches are worked through in %d parts from here on", self.parts)

    def save_state(self) -> None:
        """A checkpoint to go on from.

        Raises:
            NonFiniteLossError: where losses are read late, and one was not finite: there is nothing to go on with.
        """
        if bad := self.take.guard.bad_step():
            raise NonFiniteLossError("the loss or the gradients were not finite", bad, self.take.lr, math.nan, [])
        state = {
            "training": snapshot(self.take, self.progress),
            "records": self.records.state(),
            "trained": vars(self.trained),
            "seconds": time.perf_counter() - self.since,
        }
        self.checkpointer.save(state, self.progress)

    def _go_on(self) -> None:
        """From the last checkpoint, where there is one."""
        with undisturbed(), blamed_on(f"{self.checkpointer.store.last}: not a state of this run"):
            state = handed_round(self.prepared.accelerator, self.checkpointer.load())
            if state is None:
                self._drop_later_weights()
                log.warning("resumed: there is no checkpoint yet, so the run begins anew")
                return
            self._put_back(state)
            self.since -= state["seconds"]
        log.info("resumed at step %d of %d", self.step, self.durations.total)
        if self.progress.stopped:
            log.warning("it had stopped early, at step %d: there is nothing left to train", self.step)
        elif state["total"] != self.durations.total:
            log.warning(
                "the run is now LONGER than it was meant to be, %d steps instead of %d: its schedule is that of the "
                "longer run from here on",
                self.durations.total, state["total"],
            )  # fmt: skip

    def _put_back(self, state: dict[str, Any]) -> None:
        """Everything as it was when a checkpoint was made."""
        same = state["total"] == self.durations.total
        self.progress = put_back(self.take, state["training"], self.config.seed, same)
        self.records.put_back(state["records"])
        self.trained = Totals(**state["trained"])
        self.parts = self.take.parts
        self._drop_later_weights()

    def _drop_later_weights(self) -> None:
        """Those kept of evaluations that will be made again."""
        for path in self.run_dir.kept_steps(past=self.step):
            shutil.rmtree(path)

    def _roll_back(self, error: NonFiniteLossError) -> bool:
        """Back to the last checkpoint, with a lower rate; not where unwanted, too often, or without a checkpoint."""
        trainer, times = self.config.trainer, self.progress.nonfinite + 1
        if trainer.on_nonfinite is not NonFinite.rollback or times > trainer.max_nonfinite:
            return False
        self.checkpointer.settle()
        state = handed_round(self.prepared.accelerator, self.checkpointer.load())
        if state is None:
            return False
        self._put_back(state)
        self.progress.nonfinite = times
        self.progress.lr_factor *= trainer.rollback_lr_factor
        lower_lr(self.take, trainer.rollback_lr_factor)
        log.warning(
            "%s; back to step %d, learning rate times %g (%d of at most %d rollbacks)",
            error, self.step, trainer.rollback_lr_factor, times, trainer.max_nonfinite,
        )  # fmt: skip
        return True


def check_alike(accelerator: Accelerator, fingerprint: str) -> None:
    """All processes must have the same pairs and tokenizer, wherever they read them.

    Raises:
        InputError: naming those that do not.
    """
    found = of_all(accelerator, fingerprint)
    if others := [str(number) for number, other in enumerate(found) if other != found[0]]:
        raise InputError(f"rank {', '.join(others)}: the data or tokenizer there are not those of rank 0")


def build_loss(trainer: TrainerConfig, data: Dataset, device: torch.device) -> Loss:
    """Cross-entropy as configured."""
    weights = trainer.class_weights
    if weights == "balanced":
        weights = balanced_weights(data.label_counts(data.train))
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    return Loss(trainer.label_smoothing_factor, tensor)
