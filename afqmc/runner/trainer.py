"""The training of one run: build it, dispatch its events to the callbacks, save and resume it."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from afqmc.data.loading import fingerprint
from afqmc.distributed.collectives import all_gather_objects, broadcast_object, broadcast_state
from afqmc.evaluation.evaluator import Evaluation
from afqmc.runner.callbacks.resume_checkpoints import ResumeCheckpoints
from afqmc.runner.setup import TrainingSetup, evaluate_split, tokenize_swapped
from afqmc.runner.shutdown import ShutdownCoordinator
from afqmc.training.callbacks.averaged_weights import AveragedWeights, keeps_averaged_weights
from afqmc.training.callbacks.base import Callback, overriding
from afqmc.training.checkpoint_state import capture_state, restore_state, scale_lr
from afqmc.training.config import NonFinite
from afqmc.training.events import EvaluationEnd, Event, StepEnd, StepSkipped
from afqmc.training.loop import train
from afqmc.training.methods import MethodReports
from afqmc.training.nonfinite import NonFiniteLossError
from afqmc.training.objectives.base import Objective
from afqmc.training.objectives.factory import build_objective
from afqmc.training.objectives.multi_sample_dropout import MultiSampleDropout
from afqmc.training.optim import build_optimizer, build_scheduler
from afqmc.training.parallel import wrap
from afqmc.training.parameter_groups import OptimizerReport, describe_groups
from afqmc.training.rng import preserve_rng_state
from afqmc.training.state import StepIntervals, Throughput, TrainState
from afqmc.training.step import TrainStep
from afqmc.utils.console import print_grid
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.language import translate
from afqmc.utils.signals import allow_signals, defer_signals

log = logging.getLogger(__name__)


class Trainer:
    """Trains the model of a setup. Call ``resume`` first to start from the last checkpoint, then ``fit``.

    Args:
        setup: The parts of the run; its model is wrapped here.
        callbacks: Called in this order, after ``methods``; the resume checkpoints come last.
        start_time: ``time.perf_counter()`` at the start of the run, in seconds.
        methods: The callbacks of the config, by name.

    Attributes:
        dev: The tokenized dev split.
        swapped_dev: The same with the sentences swapped, if both orders are evaluated.
        batches: Loads the training batches of each epoch.
        intervals: The length of the training, and when to evaluate, log and save; in optimizer steps.
        state: The progress of the training; replaced when a checkpoint is restored.
        step: Takes one optimizer step; ``steps`` is the number of steps taken.
        methods: What callbacks, objective and model transforms report.
        throughput: Pairs, tokens and seconds of the optimizer steps.
        checkpoints: Saves and loads ``checkpoints/last``; also the last callback.
        shutdown: Makes all processes end after the same step.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        callbacks: Sequence[Callback],
        start_time: float,
        methods: Mapping[str, Callback] | None = None,
    ) -> None:
        self.setup, self.config, self.start_time = setup, setup.config, start_time
        config, self.accelerator = setup.config, setup.accelerator
        with self.accelerator.local_main_process_first():  # it fills the token cache, which the others read
            self.batches = setup.task.build_loader(setup.train.pairs, setup.pair_tokenizer)
            self.dev = setup.pair_tokenizer.tokenize_cached(setup.data.dev)
            self.swapped_dev = tokenize_swapped(setup, setup.data.dev)
        self.intervals = StepIntervals.of(config.trainer, len(self.batches), config.epochs)
        data_fingerprint = f"{fingerprint(setup.data)} {setup.pair_tokenizer.fingerprint}"
        if setup.train.report:
            data_fingerprint += f" {setup.train.digest(setup.data.labels)}"
        check_same_data_on_all_ranks(self.accelerator, data_fingerprint)
        self.checkpoints = ResumeCheckpoints(setup.run_dir, config.checkpoint, self.intervals, data_fingerprint)
        self.callbacks = [*(methods or {}).values(), *callbacks, self.checkpoints]
        self.step = self._build_step()
        reports: dict[str, Any] = {**setup.transforms, **(methods or {}), **self._named_objectives()}
        if self._optimizer_report.report():
            reports["optimizer"] = self._optimizer_report
        if keeps_averaged_weights(optimizer := self.step.guard.optimizer):
            averaged = AveragedWeights(optimizer)
            self.callbacks.insert(0, averaged)
            reports["averaged_weights"] = averaged
        self.methods = MethodReports(reports)
        self.state = TrainState.initial(config.trainer)
        self.throughput = Throughput()
        self.shutdown = ShutdownCoordinator(self.accelerator)
        self._num_microbatches = self.step.num_microbatches
        # Seeded again, since building a model draws other random numbers than loading weights, and dropout must not
        # depend on that. Each process draws its own masks.
        set_seed(config.seed, device_specific=True)

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return self.state.step

    @property
    def model(self) -> nn.Module:
        """The model, without the wrapper of DDP or FSDP."""
        model: nn.Module = self.accelerator.unwrap_model(self.setup.model)
        return model

    def _build_step(self) -> TrainStep:
        """Build optimizer, schedule and objective, wrap ``setup.model``, and return the training step."""
        setup, config, accelerator = self.setup, self.config, self.accelerator
        optimizer = build_optimizer(config.optimizer, setup.model, config.lr)
        self._optimizer_report = OptimizerReport(optimizer)
        if (groups := describe_groups(optimizer)) and accelerator.is_main_process:
            headers = ("layer", "parameters", "learning rate", "weight decay")
            print_grid("parameter groups", [*map(translate, headers)], groups)
        scheduler = build_scheduler(config.scheduler, optimizer, self.intervals.total, config.lr)
        counts = setup.data.label_counts(setup.train.pairs)
        objective = build_objective(config.objective, counts, accelerator.device)
        if (samples := config.model.dropout.multi_sample) > 1:
            objective = MultiSampleDropout(objective, samples)
        probe = None if accelerator.num_processes == 1 else next(self.batches.epoch(0)).shard(0, 2)[0]
        setup.model, optimizer = wrap(setup.model, optimizer, accelerator, probe)
        return TrainStep(
            setup.model,
            optimizer,
            scheduler,
            accelerator,
            config.trainer,
            config.distributed,
            objective,
            self.callbacks,
        )

    def _named_objectives(self) -> dict[str, Objective]:
        objective = self.step.objective
        if isinstance(objective, MultiSampleDropout):
            return {"multi_sample": objective, "objective": objective.objective}
        return {"objective": objective}

    def fit(self) -> None:
        """Train to the end. A signal ends the training after the current step, or in an evaluation.

        Raises:
            KeyboardInterrupt: after a signal, once a checkpoint is saved.
            NonFiniteLossError: as set by ``trainer.on_nonfinite``.
        """
        with defer_signals():
            try:
                self._notify("on_fit_start")
                self._run_loop()
                self._notify("on_train_end")
                self.methods.collect()
                self.methods.check_active()
            except BaseException as error:
                self._notify("on_exception", error)
                if isinstance(error, KeyboardInterrupt):
                    is_saved = self.checkpoints.is_saved(self.state)  # rank 0 decides, since all take part in saving
                    if broadcast_object(self.accelerator, not is_saved):
                        self.save()
                raise
            finally:
                self._notify("on_fit_end")

    def _run_loop(self) -> None:
        """Run the loop; with ``on_nonfinite=rollback``, restart it from the last checkpoint after a non-finite loss."""
        config = self.config.trainer
        max_skipped = config.max_nonfinite if config.on_nonfinite is NonFinite.skip else 0
        while True:
            try:
                for event in train(self.step, self.batches, self._evaluate, self.intervals, self.state, max_skipped):
                    self._dispatch(event)
                    self.checkpoints.check_background_save()
                    if self.shutdown.poll(self.checkpoints.is_due(self.state)):
                        self.save()
                    self.shutdown.raise_if_requested()
                return
            except NonFiniteLossError as error:
                is_restored = self._roll_back(error)  # truncates metrics.jsonl, so its row is written afterwards
                self._notify("on_nonfinite_loss", error)
                if not is_restored:
                    raise
                self.save()  # so that a resumed run keeps the lower learning rate and the number of rollbacks

    def _dispatch(self, event: Event) -> None:
        """Pass an event to the callbacks."""
        if isinstance(event, StepEnd):
            self._count(event)
            if event.metrics is not None:
                event.metrics.update(self.methods.collect())
            self._notify("on_step_end", event)
            self._warn_if_microbatches_grew()
        elif isinstance(event, StepSkipped):
            self._notify("on_nonfinite_loss", event.error)
            log.warning("%s; this batch is skipped (trainer.on_nonfinite=skip)", event.error)
        else:
            with preserve_rng_state(), self._evaluation_weights():  # callbacks must not change the training
                if event.is_best:
                    self._notify("on_new_best", event)
                self._notify("on_evaluation_end", event)

    def _notify(self, hook: str, *arguments: Any) -> None:
        for callback in overriding(self.callbacks, hook):
            getattr(callback, hook)(self, *arguments)

    @contextmanager
    def _evaluation_weights(self) -> Iterator[None]:
        """Within this context, the model has the weights to evaluate."""
        with ExitStack() as stack:
            for callback in overriding(self.callbacks, "evaluation_weights"):
                stack.enter_context(callback.evaluation_weights(self.model))
            yield

    def _evaluate(self, _: nn.Module) -> Evaluation:
        with self._evaluation_weights():
            return self.evaluate()

    def evaluate(self) -> Evaluation:
        """Evaluate the model on dev, with the weights that it has now.

        A signal interrupts it, with several processes after the current batch of all of them.
        """
        is_single = self.accelerator.num_processes == 1
        with preserve_rng_state(), allow_signals() if is_single else nullcontext():
            on_batch_end = None if is_single else self._poll_shutdown
            evaluation = evaluate_split(self.setup, self.dev, "dev", on_batch_end, self.swapped_dev)
        self._check_logits(evaluation)
        return evaluation

    def keep_as_best(self, evaluation: Evaluation) -> None:
        """Save the weights that the model has now as the best, with their evaluation."""
        self.state.best.value = evaluation.metrics[self.state.best.monitor]
        event = EvaluationEnd(self.state.step, self.state.step / self.intervals.epoch, evaluation, is_best=True)
        self._notify("on_new_best", event)

    def _poll_shutdown(self) -> None:
        self.shutdown.poll()
        self.shutdown.raise_if_requested()

    def _check_logits(self, evaluation: Evaluation) -> None:
        """Handle dev logits that are NaN or infinite like a loss that is NaN or infinite.

        Raises:
            NonFiniteLossError: unless ``trainer.on_nonfinite=skip``.
        """
        problem = evaluation.describe_missing("dev")
        if problem is None:
            return
        if self.config.trainer.on_nonfinite is NonFinite.skip:
            log.warning("%s: this evaluation has no metrics and is never the best (trainer.on_nonfinite=skip)", problem)
            return
        ids = [self.setup.data.dev.ids[index] for index in evaluation.without_prediction.tolist()]
        raise NonFiniteLossError(problem, self.state.step, self.step.lr, math.nan, ids, "dev")

    def _count(self, event: StepEnd) -> None:
        batch, throughput = event.batch, self.throughput
        throughput.pairs += len(batch)
        throughput.tokens += batch.tokens
        throughput.padded_tokens += batch.tokens if self.config.performance.padding_free else batch.padded_tokens
        throughput.seconds += event.seconds

    def _warn_if_microbatches_grew(self) -> None:
        if self.step.num_microbatches != self._num_microbatches:
            self._num_microbatches = self.step.num_microbatches
            log.warning(
                "out of memory: each batch is divided into %d microbatches from here on", self._num_microbatches
            )

    def save(self) -> None:
        """Save a checkpoint to resume from.

        Raises:
            NonFiniteLossError: when the device has skipped steps after a non-finite loss; nothing is saved.
        """
        if bad_step := self.step.guard.first_bad_step():
            raise NonFiniteLossError("the loss or the gradients were not finite", bad_step, self.step.lr, math.nan, [])
        state_of_objective = getattr(self.step.objective, "state_dict", None)
        captured = {
            "training": capture_state(self.step, self.state),
            "callbacks": {
                name: state for name, callback in self._named_callbacks() if (state := callback.state_dict())
            },
            "methods": self.methods.state_dict(),
            "objective": state_of_objective() if state_of_objective is not None else {},
            "throughput": vars(self.throughput),
            "seconds": time.perf_counter() - self.start_time,
        }
        self.checkpoints.save(captured, self.state)

    def resume(self) -> None:
        """Restore the last checkpoint; without one, start from the beginning.

        Raises:
            InputError: if the checkpoint is damaged or belongs to other data.
        """
        with defer_signals(), as_input_error(f"{self.checkpoints.store.last}: not a checkpoint of this run"):
            saved = broadcast_state(self.accelerator, self.checkpoints.load())
            if saved is None:
                self.checkpoints.discard_all()
                log.warning("resumed: there is no checkpoint yet, so the run starts from the beginning")
                return
            self._restore(saved)
            self.start_time -= saved["seconds"]  # durations include the time before the run was resumed
        log.info("resumed at step %d of %d", self.state.step, self.intervals.total)
        if self.state.stopped:
            log.warning("the training had stopped early, at step %d: there is nothing left to train", self.state.step)
        elif saved["total"] != self.intervals.total:
            log.warning(
                "the run is now longer than planned, %d steps instead of %d; from here on, the schedule is that of the "
                "longer run",
                self.intervals.total,
                saved["total"],
            )

    def _restore(self, saved: dict[str, Any]) -> None:
        """Restore everything that ``save`` captured."""
        is_same_length = saved["total"] == self.intervals.total  # written by ResumeCheckpoints.save
        self.state = restore_state(self.step, saved["training"], self.config.seed, is_same_length)
        callbacks = dict(self._named_callbacks())
        for name, state in saved["callbacks"].items():
            callbacks[name].load_state_dict(state)
        if "methods" in saved:  # checkpoints of version 0.1.0 have none
            self.methods.load_state_dict(saved["methods"])
        if objective_state := saved.get("objective"):
            self.step.objective.load_state_dict(objective_state)  # type: ignore[attr-defined]
        self.throughput = Throughput(**saved["throughput"])
        self._num_microbatches = self.step.num_microbatches

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Yield each callback with the name of its class; the second of a class is called ``Name_2``."""
        counts: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            counts[name] += 1
            yield name if counts[name] == 1 else f"{name}_{counts[name]}", callback

    def _roll_back(self, error: NonFiniteLossError) -> bool:
        """Restore the last checkpoint with a lower learning rate; return False if that is not possible."""
        trainer_config = self.config.trainer
        rollbacks = self.state.nonfinite + 1  # read before the state is restored, which would forget this one
        if trainer_config.on_nonfinite is not NonFinite.rollback or rollbacks > trainer_config.max_nonfinite:
            return False
        self.checkpoints.wait()
        saved = broadcast_state(self.accelerator, self.checkpoints.load())
        if saved is None:
            return False
        self._restore(saved)
        self.state.nonfinite = rollbacks
        self.state.lr_factor *= trainer_config.rollback_lr_factor
        scale_lr(self.step, trainer_config.rollback_lr_factor)
        log.warning(
            "%s; back to step %d, learning rate times %g (%d of at most %d rollbacks)",
            error,
            self.state.step,
            trainer_config.rollback_lr_factor,
            rollbacks,
            trainer_config.max_nonfinite,
        )
        return True


def check_same_data_on_all_ranks(accelerator: Accelerator, data_fingerprint: str) -> None:
    """Check that all processes have read the same pairs and the same tokenizer.

    Raises:
        InputError: naming the ranks that differ from rank 0.
    """
    fingerprints = all_gather_objects(accelerator, data_fingerprint)
    if different := [str(rank) for rank, other in enumerate(fingerprints) if other != fingerprints[0]]:
        raise InputError(f"rank {', '.join(different)}: data or tokenizer differ from those of rank 0")
