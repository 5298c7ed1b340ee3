"""Build the parts of a run from its config: device, data, tokenizer, model and tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import PreTrainedTokenizerBase

from afqmc import config as schema
from afqmc.config import Config
from afqmc.data.batching import Shard
from afqmc.data.config import Batching, Swap
from afqmc.data.loading import Dataset, Pairs, all_sentences
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.distributed.rank import Rank, current_rank
from afqmc.evaluation.decision import CrossFit
from afqmc.evaluation.evaluator import Evaluation, padding_warning
from afqmc.models.loading import build_tokenizer, count_parameters, model_name
from afqmc.models.transforms import ModelTransform, all_transforms, apply_transforms
from afqmc.run_dir import RunDir
from afqmc.runner.data_methods import TrainingPairs
from afqmc.runner.tasks import Task, task_of
from afqmc.runner.teacher import score_unlabelled
from afqmc.runner.validation import validate_against_data, validate_config, validate_lengths, validate_model
from afqmc.tracking.base import NullTracker, Tracker
from afqmc.tracking.factory import build_tracker
from afqmc.training.device import build_accelerator, hardware_info, select_device
from afqmc.training.process_checks import describe_batch_division
from afqmc.training.step import BatchOutOfMemoryError
from afqmc.utils.console import CountBar

log = logging.getLogger(__name__)


@dataclass
class TrainingSetup:
    """The parts of a run before its first step.

    ``data`` are the splits as they were read, and ``train`` the pairs to train on, to which data methods may have
    added some. ``model`` is wrapped later, by the accelerator. ``cross_fit`` is None without a decision.
    """

    config: Config
    run_dir: RunDir
    accelerator: Accelerator
    data: Dataset
    train: TrainingPairs
    tokenizer: PreTrainedTokenizerBase
    model: nn.Module
    pair_tokenizer: PairTokenizer
    tracker: Tracker
    transforms: dict[str, ModelTransform]
    task: Task
    cross_fit: CrossFit | None = None


def rebuild_model(setup: TrainingSetup) -> nn.Module:
    """Build the model anew, without transforms, for the weights of a checkpoint into which they are merged."""
    config = setup.config
    model = setup.task.build_model(setup.tokenizer, setup.data)
    validate_model(config, select_device(config.trainer), model)
    return model.to(setup.accelerator.device)


def evaluate_split(
    setup: TrainingSetup,
    tokenized: TokenizedPairs,
    split: str,
    on_batch_end: Callable[[], None] | None = None,
    swapped: TokenizedPairs | None = None,
) -> Evaluation:
    """Evaluate a split with a progress bar. Several processes share the work, and each returns the whole result.

    Args:
        setup: Of the run.
        tokenized: The pairs of the split.
        split: Its name.
        on_batch_end: Called after each batch.
        swapped: The same pairs with their sentences swapped; the result is then the mean of both orders.

    Raises:
        BatchOutOfMemoryError: when a batch does not fit.
    """
    size, accelerator = setup.config.trainer.eval_batch_size, setup.accelerator
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    # one autocast context around all batches, so that weights are cast once
    passes = 1 if swapped is None else 2
    with CountBar(passes * len(tokenized), split) as bar, accelerator.autocast():

        def advance(count: int) -> None:
            bar.add(count)
            if on_batch_end is not None:
                on_batch_end()

        try:
            evaluation = setup.task.evaluate(
                setup.model, tokenized, setup.pair_tokenizer, accelerator.device, advance, shard, swapped
            )
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            message = f"out of memory while evaluating {split}: use a smaller trainer.eval_batch_size (now {size})"
            raise BatchOutOfMemoryError(message) from error
    if split == "dev" and setup.cross_fit is not None:
        evaluation = replace(evaluation, metrics=evaluation.metrics | setup.cross_fit.metrics(evaluation.logits))
    return evaluation


def tokenize_swapped(setup: TrainingSetup, pairs: Pairs) -> TokenizedPairs | None:
    """Return the tokenized pairs (b, a) of a split that ``dataset.swap=both`` evaluates in both orders, else None."""
    is_used = setup.config.dataset.swap is Swap.both
    return setup.pair_tokenizer.tokenize_cached(pairs.swapped()) if is_used else None


def build_setup(config: Config, run_dir: RunDir, resumed: bool = False) -> TrainingSetup:
    """Validate the config, cheapest checks first, and build the parts of the run.

    Raises:
        InputError: for invalid config or data.
    """
    rank, task = current_rank(), task_of(config)
    choice = validate_config(config, rank)
    log.info("device: %s, precision %s (%s)", choice.device, choice.precision, choice.reason)
    if not rank.is_single:
        log.info(
            "processes: %d, %s; %s", rank.world_size, config.distributed.strategy.value, _describe_batches(config, rank)
        )
    accelerator = build_accelerator(choice, config.trainer, config.distributed, config.seed)
    for difference in run_dir.write_environment(hardware_info(choice), resumed):
        log.warning("environment changed since the run started (%s); resuming may not be bit-exact", difference)

    with accelerator.local_main_process_first():  # it downloads, and the other processes of this host find the files
        data = task.load_data()
        task.describe(data)
        train = task.training_pairs(data)
        for line in train.lines:
            log.info("data: %s", line)
        validate_against_data(config, replace(data, train=train.pairs))
        tokenizer = build_tokenizer(config.model, lambda: all_sentences(data))
        model = task.build_model(tokenizer, data)
        pair_tokenizer = task.build_pair_tokenizer(tokenizer)
        is_classifier = config.masking.unit is None
        if rank.is_main and is_classifier and (warning := padding_warning(model, data.dev, pair_tokenizer)):
            log.warning("model: %s", warning)
        transforms = all_transforms(config.model)
        apply_transforms(transforms, model)
        validate_model(config, choice, model)
        if isinstance(pairs := train.pairs, Pairs):
            validate_lengths(config, lambda: pair_tokenizer.tokenize_cached(pairs).lengths)
    if not train.are_scored:
        assert isinstance(train.pairs, Pairs)
        saved, batch_size = run_dir.teacher_logits if rank.is_main else None, config.trainer.eval_batch_size
        scored = score_unlabelled(
            train.pairs, data.labels, train.teacher, accelerator, choice, batch_size, saved, resumed
        )
        train = replace(train, pairs=scored)
    log.info("model: %s, %.1f M parameters", model_name(config.model), count_parameters(model) / 1e6)
    cross_fit = build_cross_fit(config, data) if is_classifier else None
    tracker: Tracker = NullTracker()
    if rank.is_main:
        tracker = build_tracker(config.tracker, schema.to_container(config), run_dir.path)
    return TrainingSetup(
        config,
        run_dir,
        accelerator,
        data,
        train,
        tokenizer,
        model,
        pair_tokenizer,
        tracker,
        transforms,
        task,
        cross_fit,
    )


def build_cross_fit(config: Config, data: Dataset) -> CrossFit | None:
    """Return the parts of dev on which the decision is cross-fitted; warn if dev has too few pairs."""
    cross_fit = CrossFit.of(data.dev, config.decision.metric, config.decision.folds)
    if cross_fit is None and config.decision.metric is not None:
        log.warning(
            "dev has no two classes with at least two pairs each: no threshold is chosen, and the likeliest label is "
            "predicted (decision=none)"
        )
    return cross_fit


def _describe_batches(config: Config, rank: Rank) -> str:
    if config.dataset.batching is Batching.token_budget:
        budget = config.dataset.max_tokens_per_batch
        return f"a batch of at most {budget} tokens, padding included, is divided among them"
    return describe_batch_division(config.batch_size, config.trainer, rank)
