"""Validate a config: the checks that runs, sweeps and the doctor have in common.

There is one function per stage, since each needs more than the one before: ``validate_config`` only the config,
``validate_against_data`` the data, ``validate_model`` the model and ``validate_lengths`` the tokenized pairs. Runs and
sweeps stop at the first error. The doctor reports all errors, by ``refusals``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from afqmc.config import Config
from afqmc.data.batching import count_token_budget_batches
from afqmc.data.config import Batching
from afqmc.data.download import cache_dir
from afqmc.data.loading import Dataset
from afqmc.data.masking_config import MaskingUnit
from afqmc.data.sentence_tokenization import load_segmenter
from afqmc.distributed.rank import Rank
from afqmc.evaluation.config import check_goal
from afqmc.evaluation.monitor import check_monitor
from afqmc.models.loading import check_model_config
from afqmc.models.transforms import all_transforms, built_in_transforms
from afqmc.runner.pretraining_text import check_not_pretrained_on
from afqmc.tracking.validation import check_tracker
from afqmc.training.callbacks.factory import build_callbacks
from afqmc.training.config import TrainerConfig
from afqmc.training.device import DeviceConfig, prepare_model, select_device
from afqmc.training.objectives.factory import build_objective
from afqmc.training.objectives.multi_sample_dropout import check_multi_sample
from afqmc.training.optim import check_optimizer_config, check_parameter_groups, optimizer_conflicts
from afqmc.training.process_checks import check_launcher, check_processes, describe_batch_division
from afqmc.utils.errors import InputError

Check = tuple[str, Callable[[], object]]  # the doctor's section, and what raises an InputError


def refusals(checks: Iterable[Check]) -> Iterator[tuple[str, str]]:
    """Yield section and message of each check that fails; a message that several checks give is yielded once."""
    seen = set()
    for section, check in checks:
        try:
            check()
        except InputError as error:
            if str(error) not in seen:
                seen.add(str(error))
                yield section, str(error)


def validate_config(config: Config, rank: Rank) -> DeviceConfig:
    """Check everything that needs neither data nor weights; return the device and precision.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    for _, check in config_checks(config, rank):
        check()
    return select_device(config.trainer)


def config_checks(config: Config, rank: Rank) -> Iterator[Check]:
    """Yield the checks that need neither data nor weights, cheapest first.

    Args:
        config: Of the run.
        rank: This process; its ``size`` is the number of processes of the run.
    """
    trainer = config.trainer
    yield "config", lambda: check_optimizer_config(config.optimizer, config.scheduler, config.lr)
    yield "config", lambda: check_methods(config, rank)
    if config.masking.unit is MaskingUnit.whole_word:
        yield "config", load_segmenter
    yield "model", lambda: check_model_config(config.model)
    yield "device", lambda: select_device(trainer)
    yield (
        "config",
        lambda: check_processes(trainer, config.distributed, config.performance, rank, select_device(trainer).device),
    )
    if not rank.is_single and config.dataset.batching is not Batching.token_budget:
        yield "config", lambda: describe_batch_division(config.batch_size, trainer, rank)
    yield "device", lambda: check_launcher(select_device(trainer).device, select_device(trainer).precision)
    yield "data", lambda: cache_dir(config.dataset)
    yield "tracker", lambda: check_tracker(config.tracker)


def check_methods(config: Config, rank: Rank) -> None:
    """Check what callbacks, objective, model transforms and optimizer of a config declare not to work with.

    Raises:
        InputError: naming the method or its argument, and the key that it conflicts with.
    """
    values = asdict(config)
    counts = [1] * len(config.dataset.labels or ())  # the real counts are known only with the data
    callbacks = {name: part for name, part in build_callbacks(config.callbacks).items() if not part.is_off}
    methods: dict[str, Any] = {f"callbacks.{name}": callback for name, callback in callbacks.items()}
    methods["objective"] = build_objective(config.objective, counts)
    _check_teacher(config.dataset.teacher, methods["objective"])
    built_in = built_in_transforms(config.model)
    for name, part in all_transforms(config.model).items():
        methods[f"model.{name}" if name in built_in else f"model.transforms.{name}"] = part
    methods["optimizer"] = SimpleNamespace(conflicts=optimizer_conflicts(config.optimizer))
    for name, method in methods.items():
        for conflict in getattr(method, "conflicts", ()):
            key, _, value = conflict.partition("=")
            if key.startswith("callbacks."):
                conflicting = key.removeprefix("callbacks.") in callbacks
            else:
                conflicting = _value_as_text(values, key, f"{name}: conflicts") == value
            if conflicting:
                raise InputError(f"{name}: not with {conflict}")
        if getattr(method, "needs_whole_batch", False) and (divided := _divides_batch(config.trainer, rank)):
            raise InputError(f"{name}: needs all pairs of a batch at once, so it does not work with {divided}")


def _check_teacher(teacher: str | None, objective: Any) -> None:
    """Check that a teacher is set if and only if the objective uses one.

    Raises:
        InputError: naming the key that is missing.
    """
    uses_teacher = getattr(objective, "uses_teacher", False)
    if teacher is not None and not uses_teacher:
        raise InputError(f"dataset.teacher={teacher}: also set objective=distillation, which uses it")
    if uses_teacher and teacher is None:
        raise InputError("objective=distillation: also set dataset.teacher, the directory of a sweep over dataset.fold")


def _divides_batch(config: TrainerConfig, rank: Rank) -> str | None:
    """Return what divides the batch of an optimizer step into parts, or None."""
    if not rank.is_single:
        return "several processes"
    if config.auto_microbatch:
        return "trainer.auto_microbatch=true"
    steps = config.gradient_accumulation_steps
    return f"trainer.gradient_accumulation_steps={steps}" if steps > 1 else None


def _value_as_text(values: Any, key: str, where: str) -> str:
    """Return the value of a config key as it is written in an override."""
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            raise InputError(f"{where}: there is no key {key!r}")
        values = values[part]
    value = getattr(values, "value", values)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def validate_against_data(config: Config, data: Dataset) -> None:
    """Check the config against the data, before a model is built.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    for _, check in data_checks(config, data):
        check()


def data_checks(config: Config, data: Dataset) -> Iterator[Check]:
    """Yield the checks that need the data, but no model."""
    trainer, train_counts, dev_counts = config.trainer, data.label_counts(data.train), data.label_counts(data.dev)
    yield "config", lambda: build_objective(config.objective, train_counts)
    yield "data", lambda: check_not_pretrained_on(config.model, data)
    yield "config", lambda: check_goal(config.decision.metric, len(data.labels))
    yield "config", lambda: check_monitor(trainer.monitor, data.labels, dev_counts, config.dataset.max_dev_samples)
    if steps := total_steps(config, data):
        yield "config", lambda: check_optimizer_config(config.optimizer, config.scheduler, config.lr, steps)


def validate_model(config: Config, choice: DeviceConfig, model: nn.Module) -> None:
    """Check that a model supports the config and its objective. It may be on the ``meta`` device.

    It is prepared for its device.

    Raises:
        InputError: naming the key that this model does not support.
    """
    check_parameter_groups(config.optimizer, model, config.lr)
    prepare_model(model, choice, config.trainer, config.performance)
    check_model = getattr(build_objective(config.objective, ()), "check_model", None)
    if check_model is not None:
        check_model(model)
    check_multi_sample(config.model.dropout.multi_sample, model)


def validate_lengths(config: Config, lengths: Callable[[], np.ndarray]) -> None:
    """Check the schedule where the number of steps depends on the training pairs' tokens (``batching=token_budget``).

    Args:
        config: Of the run.
        lengths: Called if needed. Returns the number of tokens per training pair, at most ``max_length``, (N,).

    Raises:
        InputError: naming the key, its value and the number of steps.
    """
    if config.dataset.batching is Batching.token_budget and config.trainer.max_steps is None:
        batches = count_token_budget_batches(lengths(), config.dataset.max_tokens_per_batch)
        check_optimizer_config(config.optimizer, config.scheduler, config.lr, config.epochs * batches)


def total_steps(config: Config, data: Dataset) -> int | None:
    """Return the number of optimizer steps; None when it depends on the lengths of the pairs in tokens."""
    if config.trainer.max_steps is not None:
        return config.trainer.max_steps
    if config.dataset.batching is Batching.token_budget:
        return None
    return config.epochs * -(-len(data.train) // config.batch_size)
