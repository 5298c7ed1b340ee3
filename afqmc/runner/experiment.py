"""One run on one page: set up, train, load the best weights, evaluate and predict, summarise."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from afqmc.checkpoint.weights import load_weights, read_tensors
from afqmc.config import Config
from afqmc.data.loading import Pairs, sorted_digest, split_digest
from afqmc.distributed.collectives import broadcast_state
from afqmc.evaluation.evaluator import Evaluation, padding_warning, prefixed
from afqmc.evaluation.metrics import collapsed_class, probabilities_of
from afqmc.evaluation.predictions import prediction_rows
from afqmc.models.loading import count_parameters
from afqmc.models.transforms import are_merged
from afqmc.run_dir import RunDir, Status
from afqmc.runner.callbacks.best_weights import BestEvaluation, BestWeights
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.callbacks.progress_bar import ProgressBar
from afqmc.runner.callbacks.pruning import Pruner, Pruning
from afqmc.runner.lifecycle import RunLifecycle, WorkerLifecycle
from afqmc.runner.setup import TrainingSetup, build_setup, evaluate_split, rebuild_model
from afqmc.runner.trainer import Trainer
from afqmc.tracking.base import Report
from afqmc.training.callbacks.base import Callback
from afqmc.training.callbacks.early_stopping import EarlyStopping
from afqmc.training.callbacks.factory import build_callbacks
from afqmc.training.device import peak_memory
from afqmc.training.parallel import destroy_process_group, load_model
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none

log = logging.getLogger(__name__)

_MERGE_TOLERANCE = 0.05  # in logits: merged weights round differently, above all with bf16


def run_experiment(
    config: Config,
    run_dir: RunDir,
    *,
    resume: bool = False,
    pruner: Pruner | None = None,
    callbacks: Sequence[Callback] = (),
    lifecycle: AbstractContextManager[RunLifecycle | WorkerLifecycle] | None = None,
) -> dict[str, Any]:
    """Train, keep the best weights on dev, evaluate them, predict the test split.

    Args:
        config: Of the run.
        run_dir: Its directory.
        resume: Resume the run in the directory, if there is one; ``config`` is then its own, with what may change.
        pruner: Of a search: may end the run after an evaluation.
        callbacks: In addition to those of the config.
        lifecycle: The context of the run, where the caller has entered it.

    Returns:
        What summary.json holds.

    Raises:
        InputError: for invalid config or data.
    """
    since = time.perf_counter()
    with lifecycle or RunLifecycle(config, run_dir, resume) as life:
        if life.finished is not None:
            return life.finished
        try:
            setup = build_setup(config, run_dir, life.resumed)
            life.tracker = setup.tracker
            best = BestWeights(setup)
            trainer = Trainer(setup, [*build_callbacks(config.callbacks).values(), *callbacks,
                                      *built_in_callbacks(setup, best, pruner)], since)  # fmt: skip
            if life.resumed:
                trainer.resume()
            life.begin_training(trainer)
            trainer.fit()
            life.complete(finalize(setup, trainer, best))
        finally:
            destroy_process_group()
    return life.summary


def built_in_callbacks(setup: TrainingSetup, best: BestWeights, pruner: Pruner | None) -> list[Callback]:
    """Return the callbacks of every run, in the order in which they are called."""
    trainer = setup.config.trainer
    callbacks = [ProgressBar(), MetricsWriter(setup.run_dir, setup.tracker), best, Pruning(pruner)]
    if trainer.patience is not None:
        callbacks.append(EarlyStopping(trainer.patience, trainer.min_delta))
    return callbacks


def finalize(setup: TrainingSetup, trainer: Trainer, best_weights: BestWeights) -> dict[str, Any]:
    """Load the best weights, check that they give the recorded logits, predict; return the summary."""
    best, config = best_weights.best, setup.config
    if best is None:
        monitor = config.trainer.monitor
        raise RuntimeError(f"no evaluation gave a finite {monitor}: there are no best weights; try a lower lr")
    accelerator = setup.accelerator
    tensors = read_tensors(setup.run_dir.best) if accelerator.is_main_process else None
    merged = are_merged(setup.transforms)
    if merged:
        setup.model = rebuild_model(setup)
    load_model(accelerator.unwrap_model(setup.model), broadcast_state(accelerator, tensors))
    dev = evaluate_split(setup, trainer.dev, "dev")
    tolerance = _MERGE_TOLERANCE if merged else 0.0
    is_same = np.allclose(dev.logits, best.evaluation.logits, rtol=0, atol=tolerance, equal_nan=True)
    if not is_same and best.batch_size == config.trainer.eval_batch_size:
        raise RuntimeError("the best weights, loaded again, do not give the dev logits that were recorded")
    write_predictions(setup, "dev", setup.data.dev, dev)
    test = None
    if setup.data.test is not None:
        test = evaluate_split(setup, setup.pair_tokenizer.tokenize_cached(setup.data.test), "test")
        write_predictions(setup, "test", setup.data.test, test)
    if accelerator.is_main_process and config.model._target_ is not None:
        warn_if_padding_matters(setup)
    setup.tracker.report(build_report(setup, best))
    trainer.checkpoints.close()
    return summarize(setup, trainer, best, dev, test)


def write_predictions(setup: TrainingSetup, split: str, pairs: Pairs, evaluation: Evaluation) -> None:
    """Write predictions/<split>.jsonl; warn of pairs without a prediction."""
    if problem := evaluation.describe_missing(split):
        log.warning("%s: null in predictions/%s.jsonl, and the metrics are undefined", problem, split)
    rows = prediction_rows(pairs.ids, evaluation.logits, pairs.labels, setup.data.labels)
    setup.run_dir.write_predictions(split, rows)


def warn_if_padding_matters(setup: TrainingSetup) -> None:
    """Warn when the best weights of a user's own model depend on padding; the initial ones may hide it."""
    try:
        model = load_weights(setup.run_dir.best, setup.config.model, trust=True).model
    except InputError as error:  # the run has its results; evaluate and predict will meet this error
        log.warning("best weights: they cannot be loaded into a new model: %s", error)
        return
    if warning := padding_warning(model, setup.data.dev, setup.pair_tokenizer):
        log.warning("best weights: %s", warning)


def data_digests(setup: TrainingSetup) -> dict[str, dict[str, Any]]:
    """Return size and digest of each split; ``evaluate`` tells by those of dev whether it has changed since."""
    data = setup.data
    digests: dict[str, dict[str, Any]] = {
        name: {"pairs": len(split), "sha256": split_digest(split, data.labels)} for name, split in data.splits().items()
    }
    digests["dev"]["sorted_sha256"] = sorted_digest(data.dev, data.labels)
    return digests


def build_report(setup: TrainingSetup, best: BestEvaluation) -> Report:
    """Return what the tracker draws."""
    dev, probabilities = setup.data.dev, probabilities_of(best.evaluation.logits)
    gold = np.asarray(dev.labels)
    return Report(best.step, setup.data.labels, probabilities, gold, dev.sentence1, dev.sentence2, setup.run_dir.best)


def summarize(
    setup: TrainingSetup, trainer: Trainer, best: BestEvaluation, dev: Evaluation, test: Evaluation | None
) -> dict[str, Any]:
    """Return what summary.json holds."""
    data, work = setup.data, trainer.throughput
    collapsed = collapsed_class(dev.logits)
    test_metrics = {} if test is None else prefixed("test", test.metrics)
    return {
        "status": Status.completed.value,
        "best": {"step": best.step, "epoch": round(best.epoch, 6), **nan_to_none(prefixed("dev", dev.metrics))},
        **({"test": nan_to_none(test_metrics)} if test_metrics else {}),
        **({"folds": folds.as_dict()} if (folds := data.folds) else {}),
        **({"left_out": left_out} if (left_out := data.left_out()) else {}),
        "data": data_digests(setup),
        "collapsed_label": None if collapsed is None else data.labels[collapsed],
        "beats_majority": dev.metrics["accuracy"] > dev.metrics["majority_accuracy"],
        "monitor": setup.config.trainer.monitor,
        "steps": trainer.steps,
        "parameters": count_parameters(setup.model),
        "train_pairs_per_second": round(work.pairs / work.seconds, 2),
        "train_padding_fraction": round(1 - work.tokens / work.padded_tokens, 4),
        "peak_memory_gib": round(peak_memory(setup.accelerator.device) / 2**30, 3),
        "train_seconds": round(work.seconds, 3),
        "total_seconds": round(time.perf_counter() - trainer.since, 3),
    }
