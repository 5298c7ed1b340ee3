"""Check the runs of a sweep before it starts, and do work that they share only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from torch import nn

from afqmc.config import Config
from afqmc.data.loading import Dataset, Pairs, all_sentences
from afqmc.data.pairs import PairStream
from afqmc.distributed.rank import Rank
from afqmc.models.loading import build_tokenizer
from afqmc.models.transforms import all_transforms, apply_transforms
from afqmc.runner.data_methods import TrainingPairs
from afqmc.runner.tasks import Task, task_of
from afqmc.runner.validation import validate_against_data, validate_config, validate_lengths, validate_model
from afqmc.utils.errors import InputError

_T = TypeVar("_T")


def preflight(configs: Sequence[Config], processes: int = 1) -> dict[int, str]:
    """Return the error of each run that cannot start, by its index in ``configs``.

    Each dataset is read and each model built only once, however many runs share it. Downloads and tokens are then in
    the caches of the jobs.

    Args:
        configs: Of the runs.
        processes: Number of processes per run.
    """
    validator, errors = _CachedValidator(Rank(world_size=processes)), dict[int, str]()
    for index, config in enumerate(configs):
        try:
            validator.validate(config)
        except InputError as error:
            errors[index] = str(error)
    return errors


class _CachedValidator:
    """Validates configs; caches datasets and models, or their errors, by the part of the config that defines them."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.datasets: dict[str, Dataset | InputError] = {}
        self.train: dict[str, TrainingPairs | InputError] = {}
        self.models: dict[str, tuple[nn.Module, np.ndarray] | InputError] = {}

    def validate(self, config: Config) -> None:
        """Check one run in the order of ``build_setup``.

        Raises:
            InputError: as the run would.
        """
        choice = validate_config(config, self.rank)
        task = task_of(config)
        key = repr((config.dataset, config.masking))
        data = _cached(self.datasets, key, task.load_data)
        train = _cached(self.train, key, lambda: task.training_pairs(data)).pairs
        validate_against_data(config, replace(data, train=train))
        key = repr((config.dataset, config.masking, config.model))
        model, lengths = _cached(self.models, key, lambda: _build_model(config, task, data, train))
        validate_model(config, choice, model)
        validate_lengths(config, lambda: lengths)


def _cached(cache: dict[str, _T | InputError], key: str, build: Callable[[], _T]) -> _T:
    if key not in cache:
        try:
            cache[key] = build()
        except InputError as error:
            cache[key] = error
    result = cache[key]
    if isinstance(result, InputError):
        raise result
    return result


def _build_model(config: Config, task: Task, data: Dataset, train: Pairs | PairStream) -> tuple[nn.Module, np.ndarray]:
    """Return the model without its weights, and the number of tokens of each training pair, (N,)."""
    tokenizer = build_tokenizer(config.model, lambda: all_sentences(data))
    model = task.build_model(tokenizer, data)
    apply_transforms(all_transforms(config.model), model)
    pair_tokenizer = task.build_pair_tokenizer(tokenizer)
    splits = data.splits() | {"train": train}
    tokenized = {
        name: pair_tokenizer.tokenize_cached(split) for name, split in splits.items() if isinstance(split, Pairs)
    }
    lengths = tokenized["train"].lengths if "train" in tokenized else np.empty(0, np.int64)
    return model.to("meta"), lengths
