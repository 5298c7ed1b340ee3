"""One run: a config and a directory in, a finished run directory out."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import nn

from afqmc import config as schema
from afqmc.agreement import check_agreement
from afqmc.batching.batches import TrainBatches
from afqmc.batching.tokens import Encoded, Encoder
from afqmc.checkpoint import restore, save_weights
from afqmc.config import Config
from afqmc.console import CountBar, TrainingBar, clock, print_table
from afqmc.dataset.checks import examine, in_short
from afqmc.dataset.download import cache_dir
from afqmc.dataset.splits import Pairs, load, sentences
from afqmc.errors import InputError
from afqmc.evaluation import Evaluation, evaluate, prediction_rows
from afqmc.metrics import collapsed_class, probabilities_of
from afqmc.model.cpu import quicken
from afqmc.model.load import build_model, build_tokenizer, check_plugged_in
from afqmc.optim import build_optimizer, build_scheduler
from afqmc.optim import check_plugged_in as check_optimizer
from afqmc.rundir import RunDir, Status
from afqmc.tracker import NullTracker, Report, Tracker, build_tracker, finite
from afqmc.train.hardware import build_accelerator, choose, describe
from afqmc.train.loop import Durations, Evaluated, Stepped, Stopped, fit
from afqmc.train.step import Loss, Step, balanced_weights

log = logging.getLogger(__name__)

_SHOWN = ("accuracy", "f1", "auc", "mcc", "loss")


def execute(config: Config, run_dir: RunDir) -> dict[str, Any]:
    """Train, keep the best on dev, evaluate it, predict; returns what summary.json holds.

    Whatever happens, status.json and the tracker are told how it ended.

    Raises:
        InputError: for what a person can mend.
    """
    run_dir.refuse_occupied()
    run_dir.path.mkdir(parents=True, exist_ok=True)
    schema.save(schema.anchored(config), run_dir.config)
    run_dir.write_status(Status.running)
    job = Job(config, run_dir)
    try:
        summary = job.run()
    except KeyboardInterrupt:
        job.tracker.finish(exit_code=130)
        run_dir.write_status(Status.interrupted, step=job.step)
        raise
    except BaseException as error:
        job.tracker.finish(exit_code=1)
        refused = isinstance(error, InputError) and job.step == 0
        run_dir.write_status(Status.refused if refused else Status.failed, step=job.step, **describe_error(error))
        raise
    job.tracker.finish(exit_code=0)
    run_dir.write_status(Status.completed, step=job.step)
    run_dir.write_summary(summary)
    show(summary, run_dir.path)
    return summary


@dataclass
class _Best:
    """The evaluation whose weights lie in checkpoints/best."""

    step: int
    epoch: float
    evaluation: Evaluation


@dataclass
class _Trained:
    """What the steps so far have worked through."""

    pairs: int = 0
    tokens: int = 0
    places: int = 0  # tokens and padding
    seconds: float = 0.0

    def add(self, event: Stepped) -> None:
        """Count a step."""
        self.pairs += len(event.batch)
        self.tokens += event.batch.tokens
        self.places += event.batch.places
        self.seconds += event.seconds


class Job:
    """The parts of one run, in the order in which they come to be."""

    def __init__(self, config: Config, run_dir: RunDir) -> None:
        self.config, self.run_dir = config, run_dir
        self.tracker: Tracker = NullTracker()
        self.step = 0
        self.best: _Best | None = None
        self.trained = _Trained()

    def run(self) -> dict[str, Any]:
        """The whole story."""
        since = time.perf_counter()
        self.prepare()
        self.train()
        return self.conclude(since)

    def prepare(self) -> None:
        """Refuse what can be refused; then device, data, tokenizer and model, cheapest first."""
        config = self.config
        check_optimizer(config.optimizer, config.scheduler, config.lr)
        check_plugged_in(config.model)
        choice = choose(config.trainer)
        log.info("device: %s, precision %s (%s)", choice.device, choice.precision, choice.reason)
        self.accelerator = build_accelerator(choice, config.trainer, config.seed)
        self.run_dir.write_environment(describe(choice))

        self.data = load(config.dataset)
        for line in in_short(self.data, examine(self.data)):
            log.info(line)
        check_agreement(config, self.data)
        self.tokenizer = build_tokenizer(config.model, lambda: sentences(self.data))
        self.model = build_model(config.model, self.tokenizer, self.data.labels, config.dataset.max_length)
        if choice.device == "cpu":
            quicken(self.model, config.trainer.quick_dropout)
        log.info("model: %s, %.1f M parameters", model_name(config), count_parameters(self.model) / 1e6)
        self.encoder = Encoder(self.tokenizer, config.dataset.max_length, cache_dir(config.dataset) / "tokens")
        self.tracker = build_tracker(config.tracker, schema.to_container(config), self.run_dir.path)

    def train(self) -> None:
        """Run the loop; write, show and keep what it yields."""
        config, trainer = self.config, self.config.trainer
        batches = TrainBatches(self.data.train, self.encoder, config.batch_size, config.seed, config.dataset)
        durations = Durations.of(trainer, len(batches), config.epochs)
        optimizer = build_optimizer(config.optimizer, self.model, config.lr)
        scheduler = build_scheduler(config.scheduler, optimizer, durations.total, config.lr)
        self.model, optimizer = self.accelerator.prepare(self.model, optimizer)
        self.dev = self.encoder.encode_once(self.data.dev)
        step = Step(self.model, optimizer, scheduler, self.accelerator, trainer, self.loss())
        events = fit(step, batches, lambda model: self.score(model, self.dev, "dev"), trainer, durations)
        set_seed(config.seed)  # dropout then does not depend on how the weights came to be
        bar = TrainingBar(durations.total)
        try:
            for event in events:
                self.step = event.step
                if isinstance(event, Stepped):
                    self.trained.add(event)
                    bar.step(event.step, event.epoch, event.metrics)
                    if event.metrics is not None:
                        self.write_row(event.step, event.epoch, event.metrics)
                elif isinstance(event, Evaluated):
                    self.keep(event)
                else:
                    self.say_stopped(event)
        finally:
            bar.close()

    def loss(self) -> Loss:
        """Cross-entropy as configured."""
        trainer, weights = self.config.trainer, self.config.trainer.class_weights
        if weights == "balanced":
            weights = balanced_weights(self.data.label_counts(self.data.train))
        tensor = None if weights is None else torch.tensor(weights, device=self.accelerator.device)
        return Loss(trainer.label_smoothing_factor, tensor)

    def score(self, model: nn.Module, encoded: Encoded, split: str) -> Evaluation:
        """Evaluate a split, with a bar."""
        with (
            CountBar(len(encoded), split) as bar,
            self.accelerator.autocast(),
        ):  # once around all: weights are cast once
            return evaluate(
                model, encoded, self.encoder, self.config.trainer.eval_batch_size, self.accelerator.device, bar.add
            )

    def keep(self, event: Evaluated) -> None:
        """Write an evaluation down; keep its weights if they are the best, or wanted anyway."""
        metrics = named("dev", event.evaluation)
        self.write_row(event.step, event.epoch, metrics)
        shown = "  ".join(f"{name} {event.evaluation.metrics[name]:.4f}" for name in _SHOWN)
        log.info("epoch %.2f  dev: %s%s", event.epoch, shown, "  (best so far)" if event.is_best else "")
        collapsed = collapsed_class(probabilities_of(event.evaluation.logits))
        if collapsed is not None:
            log.warning(
                "the model predicts %r for (nearly) every dev pair: accuracy says nothing here (majority: %.4f)",
                self.data.labels[collapsed], event.evaluation.metrics["majority_accuracy"],
            )  # fmt: skip
        if event.is_best:
            self.best = _Best(event.step, event.epoch, event.evaluation)
            self.save(self.run_dir.best)
            self.tracker.summary({"step": event.step, "epoch": event.epoch, **finite(metrics)})
        limit = self.config.trainer.save_total_limit
        if limit != 0:
            self.save(self.run_dir.step_weights(event.step))
            for old in self.run_dir.kept_steps()[: -limit if limit else 0]:
                shutil.rmtree(old)

    def say_stopped(self, event: Stopped) -> None:
        """Early stopping, in words."""
        log.info(
            "stopped early at step %d: %s has not improved by more than %g in %d evaluations",
            event.step, self.config.trainer.monitor, self.config.trainer.min_delta, event.evaluations,
        )  # fmt: skip

    def save(self, target: Path) -> None:
        """The present weights, as a directory that transformers reads."""
        save_weights(target, self.accelerator.unwrap_model(self.model), self.tokenizer, self.data.labels)

    def write_row(self, step: int, epoch: float, metrics: dict[str, float]) -> None:
        """A row for metrics.jsonl and the tracker."""
        row = {"step": step, "epoch": round(epoch, 6), **finite(metrics)}
        self.run_dir.append_metrics(row)
        self.tracker.log(row)

    def conclude(self, since: float) -> dict[str, Any]:
        """Load the best weights again, hold them to what was recorded, predict; returns the summary."""
        if self.best is None:
            raise RuntimeError(f"no evaluation gave a finite {self.config.trainer.monitor}: there are no best weights")
        restore(self.accelerator.unwrap_model(self.model), self.run_dir.best)
        again = self.score(self.model, self.dev, "dev")
        if not np.array_equal(again.logits, self.best.evaluation.logits):
            raise RuntimeError("the best weights, loaded again, do not give the dev logits that were recorded")
        self.predict("dev", self.data.dev, again)
        test: dict[str, float] = {}
        if self.data.test is not None:
            evaluation = self.score(self.model, self.encoder.encode_once(self.data.test), "test")
            self.predict("test", self.data.test, evaluation)
            test = named("test", evaluation)
        self.tracker.report(self.charts(again))
        return {
            "status": Status.completed.value,
            "best": {"step": self.best.step, "epoch": round(self.best.epoch, 6), **finite(named("dev", again))},
            **({"test": finite(test)} if test else {}),
            "monitor": self.config.trainer.monitor,
            "steps": self.step,
            "parameters": count_parameters(self.model),
            "train_pairs_per_second": round(self.trained.pairs / self.trained.seconds, 2),
            "train_padding": round(1 - self.trained.tokens / self.trained.places, 4),
            "train_seconds": round(self.trained.seconds, 3),
            "seconds": round(time.perf_counter() - since, 3),
        }

    def predict(self, split: str, pairs: Pairs, evaluation: Evaluation) -> None:
        """predictions/<split>.jsonl."""
        self.run_dir.write_predictions(split, prediction_rows(pairs, evaluation.logits, self.data.labels))

    def charts(self, evaluation: Evaluation) -> Report:
        """What the tracker draws."""
        gold = np.asarray(self.data.dev.labels)
        dev = self.data.dev
        probabilities = probabilities_of(evaluation.logits)
        return Report(self.data.labels, probabilities, gold, dev.sentence1, dev.sentence2, self.run_dir.best)


def named(split: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics as ``split/name``."""
    return {f"{split}/{name}": value for name, value in evaluation.metrics.items()}


def model_name(config: Config) -> str:
    """What to call the model in a line."""
    model = config.model
    name = model._target_ or model.name_or_path or "BERT"
    return f"{name} from random weights" if model.from_scratch and not model._target_ else name


def count_parameters(model: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def describe_error(error: BaseException) -> dict[str, str]:
    """For status.json: what a person did wrong in a sentence, anything else with its traceback."""
    if isinstance(error, InputError):
        return {"error": str(error)}
    return {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))}


def test_figures(summary: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures of a labelled test split that the table shows; none for one without labels."""
    found = summary.get("test", {})
    return [(name, found[f"test/{name}"]) for name in ("accuracy", "f1") if f"test/{name}" in found]


def show(summary: dict[str, Any], path: Path) -> None:
    """The small table at the end."""
    best = summary["best"]
    majority = best["dev/majority_accuracy"]

    def figure(name: str) -> str:
        value = best[f"dev/{name}"]
        return "undefined" if value is None else f"{value:.4f}"

    print_table(
        f"best on dev by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch {best['epoch']:g}",
        [
            ("accuracy", f"{figure('accuracy')}   (majority {majority:.4f})"),
            *((name.replace("_", " "), figure(name)) for name in ("f1", "auc", "average_precision", "mcc", "loss")),
            *((f"test {name}", f"{value:.4f}") for name, value in test_figures(summary)),
            ("training", f"{summary['train_pairs_per_second']:.0f} pairs/s, {clock(summary['train_seconds'])}"),
            ("padding", f"{summary['train_padding']:.1%} of what was computed"),
            ("whole run", clock(summary["seconds"])),
        ],
    )
    log.info("run directory: %s", path)
