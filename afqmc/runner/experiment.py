"""Run one experiment: set up, train, load the best weights, evaluate, predict, summarize."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from afqmc.checkpoint.store import add_file
from afqmc.checkpoint.weights import load_weights, read_tensors, saved_module
from afqmc.config import Config
from afqmc.data.folds import connected_groups
from afqmc.data.loading import Dataset, Pairs, sorted_digest, split_digest
from afqmc.data.pairs import sentences_digest
from afqmc.distributed.collectives import broadcast_state
from afqmc.evaluation.decision import DECISION_FILE, Decided, Decision
from afqmc.evaluation.evaluator import Evaluation, padding_warning, prefixed
from afqmc.evaluation.metrics import asymmetry, collapsed_class, probabilities_of
from afqmc.evaluation.predictions import add_groups, prediction_rows
from afqmc.models.loading import count_parameters
from afqmc.models.transforms import are_merged
from afqmc.results.metric_intervals import split_intervals
from afqmc.run_dir import RunDir, Status
from afqmc.runner.callbacks.best_weights import BestEvaluation, BestWeights
from afqmc.runner.callbacks.metrics_writer import MetricsWriter
from afqmc.runner.callbacks.progress_bar import ProgressBar
from afqmc.runner.callbacks.pruning import Pruner, Pruning
from afqmc.runner.lifecycle import RunLifecycle, WorkerLifecycle
from afqmc.runner.setup import TrainingSetup, build_setup, evaluate_split, rebuild_model, tokenize_swapped
from afqmc.runner.tasks import Pretraining
from afqmc.runner.trainer import Trainer
from afqmc.tracking.base import DevPredictions
from afqmc.training.callbacks.base import Callback
from afqmc.training.callbacks.early_stopping import EarlyStopping
from afqmc.training.callbacks.factory import build_callbacks, without_switched_off
from afqmc.training.device import peak_memory
from afqmc.training.parallel import destroy_process_group, load_model
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none

log = logging.getLogger(__name__)

_MERGED_LOGIT_TOLERANCE = 0.05  # merging transforms into the weights changes rounding, most with bf16


def run_experiment(
    config: Config,
    run_dir: RunDir,
    *,
    resume: bool = False,
    pruner: Pruner | None = None,
    callbacks: Sequence[Callback] = (),
    lifecycle: AbstractContextManager[RunLifecycle | WorkerLifecycle] | None = None,
) -> dict[str, Any]:
    """Train, keep the weights that are best on dev, evaluate them on dev, and predict the test split if there is one.

    Args:
        config: The config of the run.
        run_dir: The directory to write to.
        resume: Whether to resume the run in the directory if there is one. ``config`` must then be the config of that
            run; only the keys that ``config/resume.py`` allows may differ.
        pruner: Decides after each evaluation whether a search ends the run.
        callbacks: Callbacks in addition to those of the config, called after them.
        lifecycle: A context that yields the lifecycle of the run; by default, a new ``RunLifecycle`` is entered. A
            caller that has entered one passes ``nullcontext(lifecycle)``.

    Returns:
        The contents of summary.json; of a run that was complete already, the existing ones; of a pruned trial, its
        status.

    Raises:
        InputError: for invalid config or data.
        RuntimeError: if no evaluation gave a finite metric, or the saved best weights do not give their dev logits.
        KeyboardInterrupt: after a signal, once a checkpoint is saved.
    """
    start_time = time.perf_counter()
    with lifecycle or RunLifecycle(config, run_dir, resume) as run:
        if run.finished is not None:
            return run.finished
        try:
            setup = build_setup(config, run_dir, run.resumed)
            run.tracker = setup.tracker
            best = BestWeights(setup)
            methods = without_switched_off(build_callbacks(config.callbacks))
            trainer = Trainer(setup, [*callbacks, *built_in_callbacks(setup, best, pruner)], start_time, methods)
            if run.resumed:
                trainer.resume()
            run.begin_training(trainer)
            trainer.fit()
            run.complete(finalize(setup, trainer, best))
        finally:
            destroy_process_group()
    return run.summary  # of a pruned trial too: the lifecycle suppresses TrialPruned


def built_in_callbacks(setup: TrainingSetup, best: BestWeights, pruner: Pruner | None) -> list[Callback]:
    """Return the callbacks of every run, in the order of their calls; they come after those of the config."""
    trainer_config = setup.config.trainer
    speed_unit = "sentences/s" if isinstance(setup.task, Pretraining) else "pairs/s"
    callbacks = [ProgressBar(speed_unit), MetricsWriter(setup.run_dir, setup.tracker), best, Pruning(pruner)]
    if trainer_config.patience is not None:
        callbacks.append(EarlyStopping(trainer_config.patience, trainer_config.min_delta))
    return callbacks


def finalize(setup: TrainingSetup, trainer: Trainer, best_weights: BestWeights) -> dict[str, Any]:
    """Load the best weights into ``setup.model``, evaluate, predict and report; return the summary.

    Raises:
        RuntimeError: if there are no best weights, or they do not give the dev logits recorded when they were saved.
    """
    best, config = best_weights.best, setup.config
    if best is None:
        monitor = config.trainer.monitor
        raise RuntimeError(f"no evaluation gave a finite {monitor}: there are no best weights; try a lower lr")
    accelerator = setup.accelerator
    tensors = read_tensors(setup.run_dir.best) if accelerator.is_main_process else None
    merged = are_merged(setup.transforms.values())
    if merged:  # the saved weights fit only a model without transforms
        setup.model = rebuild_model(setup)
    load_model(saved_module(accelerator.unwrap_model(setup.model)), broadcast_state(accelerator, tensors))
    dev = evaluate_split(setup, trainer.dev, "dev", swapped=trainer.swapped_dev)
    tolerance = _MERGED_LOGIT_TOLERANCE if merged else 0.0
    is_same = np.allclose(dev.logits, best.evaluation.logits, rtol=0, atol=tolerance, equal_nan=True)
    # with another eval_batch_size, as a resumed run may have, the last bits of the logits differ
    if not is_same and best.batch_size == config.trainer.eval_batch_size:
        raise RuntimeError("the best weights, loaded again, do not give the dev logits that were recorded")
    if isinstance(setup.task, Pretraining):
        trainer.checkpoints.close()
        return summarize_pretraining(setup, trainer, best, dev, setup.task)
    decision = write_decision(setup, dev)
    decided = None if setup.cross_fit is None else setup.cross_fit.decide(dev.logits)
    write_predictions(setup, "dev", setup.data.dev, dev, decided)
    intervals = prefixed("dev", split_intervals(dev.logits, setup.data.dev, decided))
    test = None
    if (pairs := setup.data.test) is not None:
        tokenized = setup.pair_tokenizer.tokenize_cached(pairs)
        test = evaluate_split(setup, tokenized, "test", swapped=tokenize_swapped(setup, pairs))
        decided = None if decision is None else decision.apply(test.logits)
        if decision is not None and pairs.labels is not None:
            test = replace(test, metrics=test.metrics | decision.metrics(test.logits, np.asarray(pairs.labels)))
        write_predictions(setup, "test", pairs, test, decided)
        intervals |= prefixed("test", split_intervals(test.logits, pairs, decided))
    if accelerator.is_main_process and config.model._target_ is not None:
        warn_if_padding_matters(setup)
    setup.tracker.report(build_report(setup, best))
    trainer.checkpoints.close()  # deletes the checkpoint before the last
    setup.tracker.log_summary(
        {
            f"{name}_{end}": value
            for name, ends in intervals.items()
            for end, value in zip(("low", "high"), ends, strict=True)
        }
    )
    return summarize(setup, trainer, best, dev, test, measure_asymmetry(setup, dev), decision, intervals)


def measure_asymmetry(setup: TrainingSetup, dev: Evaluation) -> float:
    """Return ``dev/asymmetry`` of the best weights, and report it to the tracker.

    It costs one more pass over dev, unless ``dataset.swap=both`` has evaluated both orders already.
    """
    by_order = dev.by_order
    if len(by_order) == 1:
        swapped = setup.pair_tokenizer.tokenize_cached(setup.data.dev.swapped())
        by_order += (evaluate_split(setup, swapped, "dev").logits,)
    value = asymmetry(*by_order)
    setup.tracker.log_summary(nan_to_none({"dev/asymmetry": value}))
    return value


def write_decision(setup: TrainingSetup, dev: Evaluation) -> Decision | None:
    """Fit the decision on all dev pairs, and write it beside the best weights; return None without one."""
    decision = None if setup.cross_fit is None else setup.cross_fit.fit(dev.logits)
    if decision is not None and setup.accelerator.is_main_process:
        add_file(setup.run_dir.best, DECISION_FILE, json.dumps(decision.to_dict(), indent=2) + "\n")
    return decision


def write_predictions(
    setup: TrainingSetup, split: str, pairs: Pairs, evaluation: Evaluation, decided: Decided | None
) -> None:
    """Write predictions/<split>.jsonl; warn about pairs whose logits are not finite."""
    if problem := evaluation.describe_missing(split):
        log.warning("%s: null in predictions/%s.jsonl, and the metrics are undefined", problem, split)
    rows = prediction_rows(pairs.ids, evaluation.logits, pairs.labels, setup.data.labels, decided=decided)
    if pairs.labels is not None:
        add_groups(rows, connected_groups(pairs.sentence1, pairs.sentence2))
    setup.run_dir.write_predictions(split, rows)


def warn_if_padding_matters(setup: TrainingSetup) -> None:
    """Warn if logits of a custom model depend on padding; setup checks the initial weights, which may not show it."""
    try:
        model = load_weights(setup.run_dir.best, setup.config.model, trust=True).model
    except InputError as error:  # the run has its results; evaluate and predict will meet this error
        log.warning("best weights: they cannot be loaded into a new model: %s", error)
        return
    if warning := padding_warning(model, setup.data.dev, setup.pair_tokenizer):
        log.warning("best weights: %s", warning)


def data_digests(data: Dataset) -> dict[str, dict[str, Any]]:
    """Return size and digests of each split; ``evaluate`` and ``reproduce`` compare them with the data on disk."""
    digests: dict[str, dict[str, Any]] = {
        name: {"pairs": len(split), "sha256": split_digest(split, data.labels)} for name, split in data.splits().items()
    }
    digests["dev"]["sorted_sha256"] = sorted_digest(data.dev, data.labels)
    for name, split in data.splits().items():
        if isinstance(split, Pairs) and split.labels:
            digests[name]["sentences_sha256"] = sentences_digest(split)
    return digests


def build_report(setup: TrainingSetup, best: BestEvaluation) -> DevPredictions:
    """Return the dev predictions of the best weights, from which the tracker draws its charts."""
    dev, probabilities = setup.data.dev, probabilities_of(best.evaluation.logits)
    labels = np.asarray(dev.labels)
    return DevPredictions(
        best.step, setup.data.labels, probabilities, labels, dev.sentence1, dev.sentence2, setup.run_dir.best
    )


def summarize(
    setup: TrainingSetup,
    trainer: Trainer,
    best: BestEvaluation,
    dev: Evaluation,
    test: Evaluation | None,
    dev_asymmetry: float,
    decision: Decision | None,
    intervals: dict[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return the contents of summary.json. ``train_seconds`` is without evaluations; memory is that of this process."""
    data = setup.data
    collapsed = collapsed_class(dev.logits)
    dev_metrics = prefixed("dev", dev.metrics | {"asymmetry": dev_asymmetry})
    test_metrics = {} if test is None else prefixed("test", test.metrics)
    return {
        **describe_best(best, dev_metrics),
        **({"test": nan_to_none(test_metrics)} if test_metrics else {}),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
        **({"folds": folds.as_dict()} if (folds := data.folds) else {}),
        **({"left_out": left_out} if (left_out := data.left_out()) else {}),
        "data": data_digests(data),
        **({"methods": methods} if (methods := setup.train.report | trainer.methods.latest) else {}),
        "collapsed_label": None if collapsed is None else data.labels[collapsed],
        "beats_majority": dev.metrics["accuracy"] > dev.metrics["majority_accuracy"],
        **describe_decision(decision, dev.metrics),
        **describe_training(setup, trainer),
    }


def describe_decision(decision: Decision | None, metrics: dict[str, float]) -> dict[str, Any]:
    """Return the entries of summary.json on the decision."""
    if decision is None:
        return {}
    beats = metrics["accuracy_decided"] > metrics["majority_accuracy"]
    return {"beats_majority_decided": beats, "decision": decision.to_dict()}


def summarize_pretraining(
    setup: TrainingSetup, trainer: Trainer, best: BestEvaluation, dev: Evaluation, task: Pretraining
) -> dict[str, Any]:
    """Return the contents of summary.json of a pretraining."""
    assert task.counts is not None
    digests = {name: split_digest(split, ()) for name, split in setup.data.splits().items()}
    return {
        **describe_best(best, prefixed("dev", dev.metrics)),
        "pretraining": asdict(task.counts) | {"sha256": digests},
        **({"methods": methods} if (methods := trainer.methods.latest) else {}),
        **describe_training(setup, trainer),
    }


def describe_best(best: BestEvaluation, metrics: dict[str, float]) -> dict[str, Any]:
    """Return the first entries of summary.json: the status, and the best evaluation with its metrics."""
    return {
        "status": Status.completed.value,
        "best": {"step": best.step, "epoch": round(best.epoch, 6), **nan_to_none(metrics)},
    }


def describe_training(setup: TrainingSetup, trainer: Trainer) -> dict[str, Any]:
    """Return the last entries of summary.json: the size and the speed of the training."""
    throughput = trainer.throughput
    return {
        "monitor": setup.config.trainer.monitor,
        "steps": trainer.steps,
        "parameters": count_parameters(setup.model),
        "train_pairs_per_second": round(throughput.pairs / throughput.seconds, 2),
        "train_padding_fraction": round(1 - throughput.tokens / throughput.padded_tokens, 4),
        "peak_memory_gib": round(peak_memory(setup.accelerator.device) / 2**30, 3),
        "train_seconds": round(throughput.seconds, 3),
        "total_seconds": round(time.perf_counter() - trainer.start_time, 3),
    }
