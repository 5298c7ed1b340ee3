"""The schema of a config, and the checks that need neither data nor weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from afqmc.config.renamed_keys import new_value
from afqmc.data.config import Batching, DatasetConfig, Swap, check_column_keys, check_reading
from afqmc.data.labels import label_name
from afqmc.data.masking_config import MaskingConfig
from afqmc.evaluation.config import DecisionConfig, parse_goal
from afqmc.evaluation.metric_names import DECIDED_NAMES, MASKED_LM_NAMES, NAMES
from afqmc.models.config import ModelConfig
from afqmc.sweeps.config import SweepConfig, check_sweep
from afqmc.tracking.config import TrackerConfig
from afqmc.training.config import CheckpointConfig, DistributedConfig, PerformanceConfig, Strategy, TrainerConfig
from afqmc.utils.errors import InputError, did_you_mean
from afqmc.utils.fields import check_ranges, config_field

MASKED_LM = "afqmc.training.objectives.masked_lm.MaskedLM"


@dataclass
class Config:
    """The config of a run. Keys that are often swept are at the top; every other key is in its group."""

    lr: float = config_field(1e-5, "peak learning rate", gt=0, le=10)
    batch_size: int = config_field(4, "pairs per optimizer step", ge=1)
    epochs: int = config_field(3, "passes over the training pairs", ge=1)
    seed: int = config_field(42, "random seed of weights, batch order and dropout", ge=0, lt=2**32)
    resume: Optional[str] = config_field(
        None, "a run directory to resume, or auto: resume if there is a run, else start one"
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: dict[str, Any] = field(default_factory=lambda: {"layer_decay": None, "head_lr": None})
    scheduler: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    performance: PerformanceConfig = field(default_factory=PerformanceConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


def check_config(config: Config, labelled: bool = True) -> None:
    """Check a config without loading anything.

    Args:
        config: The config of a run.
        labelled: Whether labels are read from the data.

    Raises:
        InputError: naming the key, what is wrong and what is allowed.
    """
    check_ranges(config)
    trainer = config.trainer
    names = (*NAMES, *DECIDED_NAMES) if config.masking.unit is None else MASKED_LM_NAMES
    metrics = [f"dev/{name}" for name in names if name not in ("majority_accuracy", "perplexity")]
    if trainer.monitor not in metrics:
        replacement = new_value("trainer.monitor", trainer.monitor)
        hint = f"; is now {replacement}" if replacement else did_you_mean(trainer.monitor, metrics)
        raise InputError(f"trainer.monitor={trainer.monitor}: no such metric{hint}")
    if config.decision.metric is not None:
        parse_goal(config.decision.metric)
    elif trainer.monitor.removeprefix("dev/") in DECIDED_NAMES:
        raise InputError(f"trainer.monitor={trainer.monitor}: also set decision.metric; decision=none decides nothing")
    if trainer.contradicts_metric:
        better, mode = ("higher", "max") if trainer.higher_is_better else ("lower", "min")
        raise InputError(
            f"trainer.mode={trainer.mode.value}: would keep the worst epoch, since a {better} {trainer.monitor} is "
            f"better; allowed: auto, {mode}"
        )
    if trainer.gradient_accumulation_steps > config.batch_size:
        raise InputError(
            f"trainer.gradient_accumulation_steps={trainer.gradient_accumulation_steps}: must be <= batch_size="
            f"{config.batch_size}; it divides the batch of a step into that many microbatches"
        )
    check_reading(config.dataset)
    check_column_keys(config.dataset, labelled)
    _check_drop_labels(config.dataset)
    _check_batching(config.dataset)
    _check_folds(config.dataset)
    _check_task(config)
    _check_methods(config.dataset)
    check_sweep(config.sweep)


def _check_drop_labels(dataset: DatasetConfig) -> None:
    kept, dropped = ({label_name(name) for name in names or ()} for names in (dataset.labels, dataset.drop_labels))
    if both := sorted(kept & dropped):
        raise InputError(f"dataset.drop_labels: {both[0]!r} is in dataset.labels too; remove it from one of them")


def _check_batching(dataset: DatasetConfig) -> None:
    if dataset.batching is not Batching.token_budget:
        return
    if dataset.streaming:
        raise InputError(
            "dataset.batching=token_budget: not with dataset.streaming=true; allowed there: random, length"
        )
    if dataset.max_tokens_per_batch < dataset.max_length:
        raise InputError(
            f"dataset.max_tokens_per_batch={dataset.max_tokens_per_batch}: must be >= "
            f"dataset.max_length={dataset.max_length}, or the longest pair fits no batch"
        )


def _check_folds(dataset: DatasetConfig) -> None:
    folds, fold = dataset.num_folds, dataset.fold
    if folds is None:
        if fold is not None:
            raise InputError(f"dataset.fold={fold}: also set dataset.num_folds (for example dataset.num_folds=5)")
        return
    every = ",".join(map(str, range(min(folds, 10)))) + (",..." if folds > 10 else "")
    if fold is None:
        raise InputError(
            f"dataset.fold: is not set; with dataset.num_folds={folds} it selects the fold that is dev, as in -m "
            f"dataset.fold={every}"
        )
    if fold >= folds:
        raise InputError(f"dataset.fold={fold}: must be >= 0 and < dataset.num_folds={folds} (folds count from 0)")
    if dataset.streaming:
        raise InputError(f"dataset.num_folds={folds}: not with dataset.streaming=true: folds need all pairs in memory")


def _check_methods(dataset: DatasetConfig) -> None:
    """Check that data methods are not used with a stream, and that a teacher has predictions for all pairs."""
    methods = {
        f"dataset.swap={dataset.swap.value}": dataset.swap is not Swap.none,
        "dataset.transitive=true": dataset.transitive,
        f"dataset.teacher={dataset.teacher}": dataset.teacher is not None,
    }
    if dataset.streaming and (active := [name for name, is_on in methods.items() if is_on]):
        raise InputError(f"{active[0]}: not with dataset.streaming=true: it needs all pairs in memory")
    if dataset.teacher is None:
        if dataset.unlabelled_file is not None:
            raise InputError(
                f"dataset.unlabelled_file={dataset.unlabelled_file}: also set dataset.teacher, which scores it"
            )
    elif dataset.num_folds is not None:
        raise InputError(
            f"dataset.teacher={dataset.teacher}: not with dataset.num_folds: the models of the teacher have been "
            "trained on the labels of each fold, also the one that would be dev"
        )
    elif dataset.transitive:
        raise InputError(
            f"dataset.teacher={dataset.teacher}: not with dataset.transitive=true: the teacher has no predictions for "
            "added pairs"
        )


def _check_task(config: Config) -> None:
    """Check that the keys are those of one kind of run: pretraining, or fine-tuning.

    Raises:
        InputError: naming the key that has no meaning in it.
    """
    objective, unit = config.objective.get("_target_"), config.masking.unit
    if unit is None:
        if objective == MASKED_LM:
            raise InputError("objective=masked_lm: only with afqmc.pretrain")
        return
    dataset, model = config.dataset, config.model
    rules = (
        (objective != MASKED_LM, f"objective._target_={objective}", "the objective is masked_lm"),
        (dataset.streaming, "dataset.streaming=true", "all sentences are kept in memory"),
        (
            dataset.max_dev_samples is not None or dataset.max_test_samples is not None,
            "dataset.max_dev_samples, dataset.max_test_samples",
            "all sentences of dev and test are left out",
        ),
        (model._target_ is not None, f"model._target_={model._target_}", "the model is one of transformers"),
        (dataset.swap is not Swap.none, f"dataset.swap={dataset.swap.value}", "sentences are used one by one"),
        (dataset.transitive, "dataset.transitive=true", "sentences are used one by one, without labels"),
        (
            dataset.teacher is not None or dataset.unlabelled_file is not None,
            "dataset.teacher, dataset.unlabelled_file",
            "a teacher predicts labels of pairs",
        ),
        (config.decision.metric is not None, f"decision.metric={config.decision.metric}", "there are no classes"),
        (model.classifier_dropout is not None, "model.classifier_dropout", "there is no classifier"),
        (
            model.dropout.multi_sample > 1,
            f"model.dropout.multi_sample={model.dropout.multi_sample}",
            "there is no classifier",
        ),
        (bool(model.freeze), "model.freeze", "all weights are trained"),
        (bool(model.reinit_layers), f"model.reinit_layers={model.reinit_layers}", "no weights are replaced"),
        (bool(model.lora.r), f"model.lora.r={model.lora.r}", "all weights are trained"),
        (model.mixout > 0, f"model.mixout={model.mixout}", "no weights are replaced"),
        (bool(model.transforms), "model.transforms", "all weights are trained"),
        (
            config.sweep.baseline is not None,
            f"sweep.baseline={config.sweep.baseline}",
            "afqmc.compare compares runs of afqmc.run",
        ),
        (config.tracker.log_model, "tracker.log_model=true", "upload checkpoints/best of the run directory yourself"),
        (config.performance.padding_free, "performance.padding_free=true", "the head needs padded sentences"),
        (
            config.distributed.strategy is Strategy.fsdp,
            "distributed.strategy=fsdp",
            "the embeddings are shared with the head; allowed: ddp",
        ),
    )
    for is_violated, key, reason in rules:
        if is_violated:
            raise InputError(f"{key}: not with afqmc.pretrain (masking.unit={unit.value}): {reason}")
