"""One run: a config and a directory in, a finished run directory out."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from afqmc import config as schema
from afqmc.checkpoint.weights import load_weights, read_tensors
from afqmc.config import Config
from afqmc.dataset.fingerprint import sorted_digest, split_digest
from afqmc.dataset.splits import Pairs
from afqmc.errors import InputError
from afqmc.evaluation import Evaluation, padding_warning, prediction_rows
from afqmc.metrics.classification import collapsed_class, probabilities_of
from afqmc.model.describe import count_parameters
from afqmc.preparation import Prepared, prepare
from afqmc.records import BestEvaluation, named
from afqmc.rundir import RunDir, Status, finite
from afqmc.search.judge import Judge
from afqmc.tracker.protocol import NullTracker, Report, Tracker
from afqmc.train.collectives import handed_round
from afqmc.train.hardware import peak_memory
from afqmc.train.strategy import leave, load_model
from afqmc.training import Training

log = logging.getLogger(__name__)


class Job:
    """Prepare, train, conclude.

    Args:
        config: Of the run.
        run_dir: Where.
        resumed: Whether a run is there, which this one goes on with.
        judge: Of a search: hears of each evaluation, and may end the run.
    """

    def __init__(self, config: Config, run_dir: RunDir, resumed: bool = False, judge: Judge | None = None) -> None:
        self.config, self.run_dir, self.resumed, self.judge = config, run_dir, resumed, judge
        self.prepared: Prepared | None = None
        self.training: Training | None = None

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return 0 if self.training is None else self.training.step

    @property
    def tracker(self) -> Tracker:
        """Who is told, once there is somebody."""
        return NullTracker() if self.prepared is None else self.prepared.tracker

    def run(self) -> dict[str, Any]:
        """The whole story; returns the summary."""
        try:
            return self._run()
        finally:
            leave()

    def _run(self) -> dict[str, Any]:
        since = time.perf_counter()
        self.prepared = prepare(self.config, self.run_dir, self.resumed)
        self.training = Training(self.prepared, self.resumed, since, self.judge)
        if self.resumed and self.prepared.accelerator.is_main_process:
            self.run_dir.summary.unlink(missing_ok=True)  # it may become longer than it was when it was complete
            self.run_dir.write_status(Status.running, step=self.step)
            schema.save(schema.anchored(self.config), self.run_dir.config)
        self.training.run()
        return self.conclude(self.prepared, self.training)

    def conclude(self, prepared: Prepared, training: Training) -> dict[str, Any]:
        """Load the best weights again, hold them to what was recorded, predict; returns the summary."""
        best, trained, monitor = training.records.best, training.trained, self.config.trainer.monitor
        if best is None:
            raise RuntimeError(f"no evaluation gave a finite {monitor}: there are no best weights; try a lower lr")
        accelerator = prepared.accelerator
        tensors = read_tensors(self.run_dir.best) if accelerator.is_main_process else None
        load_model(accelerator.unwrap_model(prepared.model), handed_round(accelerator, tensors))
        again = prepared.score(training.dev, "dev")
        same = np.array_equal(again.logits, best.evaluation.logits)
        if not same and best.batch_size == self.config.trainer.eval_batch_size:
            raise RuntimeError("the best weights, loaded again, do not give the dev logits that were recorded")
        self.predict("dev", prepared.data.dev, again)
        test: dict[str, float] = {}
        if prepared.data.test is not None:
            evaluation = prepared.score(prepared.encoder.encode_once(prepared.data.test), "test")
            self.predict("test", prepared.data.test, evaluation)
            test = named("test", evaluation)
        if accelerator.is_main_process and self.config.model._target_ is not None:
            self.check_padding(prepared)
        prepared.tracker.report(self.charts(best))
        training.checkpointer.finish()
        collapsed = collapsed_class(again.logits)
        return {
            "status": Status.completed.value,
            "best": {"step": best.step, "epoch": round(best.epoch, 6), **finite(named("dev", again))},
            **({"test": finite(test)} if test else {}),
            **({"folds": folds.as_dict()} if (folds := prepared.data.folds) else {}),
            **({"left_out": left_out} if (left_out := prepared.data.left_out()) else {}),
            "data": self.digests(prepared),
            "collapsed_onto": None if collapsed is None else prepared.data.labels[collapsed],
            "beats_majority": again.metrics["accuracy"] > again.metrics["majority_accuracy"],
            "monitor": monitor,
            "steps": training.step,
            "parameters": count_parameters(prepared.model),
            "train_pairs_per_second": round(trained.pairs / trained.seconds, 2),
            "train_padding": round(1 - trained.tokens / trained.places, 4),
            "peak_memory_gib": round(peak_memory(accelerator.device) / 2**30, 3),
            "train_seconds": round(trained.seconds, 3),
            "seconds": round(time.perf_counter() - training.since, 3),
        }

    def digests(self, prepared: Prepared) -> dict[str, dict[str, Any]]:
        """Size and digest of each split; evaluate tells by those of dev whether it has changed since."""
        data = prepared.data
        found: dict[str, dict[str, Any]] = {
            name: {"pairs": len(split), "sha256": split_digest(split, data.labels)}
            for name, split in data.splits().items()
        }
        found["dev"]["sorted_sha256"] = sorted_digest(data.dev, data.labels)
        return found

    def predict(self, split: str, pairs: Pairs, evaluation: Evaluation) -> None:
        """Write predictions/<split>.jsonl; warn of pairs without a prediction."""
        assert self.prepared is not None
        if told := evaluation.lacking(split):
            log.warning("%s: null in predictions/%s.jsonl, and the metrics are undefined", told, split)
        self.run_dir.write_predictions(split, prediction_rows(pairs, evaluation.logits, self.prepared.data.labels))

    def check_padding(self, prepared: Prepared) -> None:
        """Warn when the best weights of a user's own model depend on padding; the initial ones may hide it."""
        try:
            model = load_weights(self.run_dir.best, self.config.model, trust=True).model
        except InputError as error:  # the run has its results; evaluate and predict will meet this error
            log.warning("best weights: they cannot be loaded into a new model: %s", error)
            return
        if warning := padding_warning(model, prepared.data.dev, prepared.encoder):
            log.warning("best weights: %s", warning)

    def charts(self, best: BestEvaluation) -> Report:
        """What the tracker draws."""
        assert self.prepared is not None
        data, probabilities = self.prepared.data, probabilities_of(best.evaluation.logits)
        dev, gold = data.dev, np.asarray(data.dev.labels)
        return Report(best.step, data.labels, probabilities, gold, dev.sentence1, dev.sentence2, self.run_dir.best)
