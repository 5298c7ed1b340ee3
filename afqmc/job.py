"""One run: a config and a directory in, a finished run directory out."""

from __future__ import annotations

import logging
import shutil
import time
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
from afqmc.console import CountBar, TrainingBar
from afqmc.dataset.checks import examine, in_short
from afqmc.dataset.download import cache_dir
from afqmc.dataset.splits import Pairs, load, sentences
from afqmc.evaluation import Evaluation, evaluate, prediction_rows
from afqmc.metrics.classification import collapsed_class, probabilities_of
from afqmc.model.describe import count_parameters, name_of
from afqmc.model.load import build_model, build_tokenizer, check_plugged_in
from afqmc.optim import build_optimizer, build_scheduler
from afqmc.optim import check_plugged_in as check_optimizer
from afqmc.rundir import RunDir, Status, finite
from afqmc.table import in_words
from afqmc.tracker.build import build_tracker
from afqmc.tracker.protocol import NullTracker, Report, Tracker
from afqmc.train.graphs import WIDTHS, GraphedStep, check_graphs, make_capturable
from afqmc.train.hardware import adapt, build_accelerator, choose, describe
from afqmc.train.loop import Durations, Evaluated, Stepped, Stopped, fit
from afqmc.train.step import Loss, Step, balanced_weights
from afqmc.train.totals import Totals

log = logging.getLogger(__name__)

_SHOWN = ("accuracy", "f1", "auc", "mcc", "loss")


@dataclass
class _Best:
    """The evaluation whose weights lie in checkpoints/best."""

    step: int
    epoch: float
    evaluation: Evaluation


class Job:
    """The parts of one run, in the order in which they come to be."""

    def __init__(self, config: Config, run_dir: RunDir) -> None:
        self.config, self.run_dir = config, run_dir
        self.tracker: Tracker = NullTracker()
        self.step = 0
        self.best: _Best | None = None
        self.trained = Totals(config.trainer.padding_free)
        self.warned_of_collapse = False

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
        check_graphs(config.trainer, choice)
        log.info("device: %s, precision %s (%s)", choice.device, choice.precision, choice.reason)
        self.accelerator = build_accelerator(choice, config.trainer, config.seed)
        self.run_dir.write_environment(describe(choice))

        self.data = load(config.dataset)
        for line in in_short(self.data, examine(self.data)):
            log.info(line)
        check_agreement(config, self.data)
        self.tokenizer = build_tokenizer(config.model, lambda: sentences(self.data))
        self.model = build_model(config.model, self.tokenizer, self.data.labels, config.dataset.max_length)
        adapt(self.model, choice, config.trainer)
        log.info("model: %s, %.1f M parameters", name_of(config.model), count_parameters(self.model) / 1e6)
        self.encoder = Encoder(self.tokenizer, config.dataset.max_length, cache_dir(config.dataset) / "tokens")
        self.tracker = build_tracker(config.tracker, schema.to_container(config), self.run_dir.path)

    def train(self) -> None:
        """Run the loop; write, show and keep what it yields."""
        config, trainer = self.config, self.config.trainer
        multiple = WIDTHS if trainer.cuda_graphs else 1
        batches = TrainBatches(self.data.train, self.encoder, config.batch_size, config.seed, config.dataset, multiple)
        durations = Durations.of(trainer, len(batches), config.epochs)
        optimizer = build_optimizer(config.optimizer, self.model, config.lr)
        if trainer.cuda_graphs:
            make_capturable(optimizer, self.accelerator.device)
        scheduler = build_scheduler(config.scheduler, optimizer, durations.total, config.lr)
        self.model, optimizer = self.accelerator.prepare(self.model, optimizer)
        self.dev = self.encoder.encode_once(self.data.dev)
        kind = GraphedStep if trainer.cuda_graphs else Step
        step = kind(self.model, optimizer, scheduler, self.accelerator, trainer, self.loss())
        events = fit(step, batches, lambda model: self.score(model, self.dev, "dev"), trainer, durations)
        set_seed(config.seed)  # dropout then does not depend on how the weights came to be
        bar = TrainingBar(durations.total)
        try:
            for event in events:
                self.step = event.step
                if isinstance(event, Stepped):
                    self.trained.add(event)
                    due = event.metrics is not None
                    bar.step(event.step, event.epoch, event.loss, event.lr, event.speed, due)
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
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self.accelerator.device)
        return Loss(trainer.label_smoothing_factor, tensor)

    def score(self, model: nn.Module, encoded: Encoded, split: str) -> Evaluation:
        """Evaluate a split, with a bar."""
        # autocast around all batches: weights are cast once
        with CountBar(len(encoded), split) as bar, self.accelerator.autocast():
            return evaluate(
                model, encoded, self.encoder, self.config.trainer.eval_batch_size, self.accelerator.device, bar.add
            )

    def keep(self, event: Evaluated) -> None:
        """Write an evaluation down; keep its weights if they are the best, or wanted anyway."""
        metrics = named("dev", event.evaluation)
        self.write_row(event.step, event.epoch, metrics)
        shown = "  ".join(f"{name} {event.evaluation.metrics[name]:.4f}" for name in _SHOWN)
        log.info("epoch %.2f  dev: %s%s", event.epoch, shown, "  (best so far)" if event.is_best else "")
        self.warn_of_collapse(event.evaluation)
        if event.is_best:
            self.best = _Best(event.step, event.epoch, event.evaluation)
            self.save(self.run_dir.best)
            self.tracker.summary({"step": event.step, "epoch": event.epoch, **finite(metrics)})
        limit = self.config.trainer.save_total_limit
        if limit != 0:
            self.save(self.run_dir.step_weights(event.step))
            for old in self.run_dir.kept_steps()[: -limit if limit else 0]:
                shutil.rmtree(old)

    def warn_of_collapse(self, evaluation: Evaluation) -> None:
        """Once a run; summary.json says whether it is true of the best weights."""
        label = self.collapsed_onto(evaluation)
        if label is not None and not self.warned_of_collapse:
            self.warned_of_collapse = True
            log.warning("the model has collapsed: %s", in_words(label, evaluation.metrics["majority_accuracy"]))

    def collapsed_onto(self, evaluation: Evaluation) -> str | None:
        """The label that (nearly) every pair gets, None for a model that tells pairs apart."""
        found = collapsed_class(probabilities_of(evaluation.logits))
        return None if found is None else self.data.labels[found]

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
        self.tracker.report(self.charts(self.best))
        return {
            "status": Status.completed.value,
            "best": {"step": self.best.step, "epoch": round(self.best.epoch, 6), **finite(named("dev", again))},
            **({"test": finite(test)} if test else {}),
            "collapsed_onto": self.collapsed_onto(again),
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

    def charts(self, best: _Best) -> Report:
        """What the tracker draws."""
        dev, probabilities = self.data.dev, probabilities_of(best.evaluation.logits)
        gold = np.asarray(dev.labels)
        return Report(best.step, self.data.labels, probabilities, gold, dev.sentence1, dev.sentence2, self.run_dir.best)


def named(split: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics as ``split/name``."""
    return {f"{split}/{name}": value for name, value in evaluation.metrics.items()}
