"""Before a sweep: whatever would stop one of its jobs, found by doing it once for all that have it in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from afqmc.config import Config
from afqmc.data.download import cache_dir
from afqmc.data.loading import Dataset, Pairs, all_sentences, load_dataset
from afqmc.data.tokenization import PairTokenizer
from afqmc.distributed.rank import Rank
from afqmc.models.loading import build_model, build_tokenizer
from afqmc.runner.validation import validate_against_data, validate_config, validate_lengths, validate_model
from afqmc.utils.errors import InputError


def preflight(configs: Sequence[Config], processes: int = 1) -> dict[int, str]:
    """What stops each of these runs, by its place; nothing where nothing does.

    Each data set is read and each model built once, however many runs share it. That leaves downloads, weights and
    tokens where every job finds them.

    Args:
        configs: Of the runs.
        processes: That each is to have.
    """
    checked, found = _Checked(Rank(world_size=processes)), dict[int, str]()
    for place, config in enumerate(configs):
        try:
            checked.check(config)
        except InputError as error:
            found[place] = str(error)
    return found


class _Checked:
    """Data sets and models that were looked at, by what their configs say, with what was wrong with them."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.data: dict[str, Dataset | InputError] = {}
        self.models: dict[str, tuple[nn.Module, np.ndarray] | InputError] = {}

    def check(self, config: Config) -> None:
        """One run, as ``preparation.prepare`` goes about it."""
        choice = validate_config(config, self.rank)
        data = self._data(config)
        validate_against_data(config, data)
        model, lengths = self._model(config, data)
        validate_model(config, choice, model)
        validate_lengths(config, lambda: lengths)

    def _data(self, config: Config) -> Dataset:
        key = repr(config.dataset)
        if key not in self.data:
            try:
                self.data[key] = load_dataset(config.dataset)
            except InputError as error:
                self.data[key] = error
        found = self.data[key]
        if isinstance(found, InputError):
            raise found
        return found

    def _model(self, config: Config, data: Dataset) -> tuple[nn.Module, np.ndarray]:
        """The model without its weights, and the tokens of each training pair."""
        key = repr((config.dataset, config.model))
        if key not in self.models:
            try:
                self.models[key] = _build(config, data)
            except InputError as error:
                self.models[key] = error
        found = self.models[key]
        if isinstance(found, InputError):
            raise found
        return found


def _build(config: Config, data: Dataset) -> tuple[nn.Module, np.ndarray]:
    tokenizer = build_tokenizer(config.model, lambda: all_sentences(data))
    model = build_model(config.model, tokenizer, data.labels, config.dataset.max_length)
    encoder = PairTokenizer(tokenizer, config.dataset.max_length, cache_dir(config.dataset) / "tokens")
    encoded = {
        name: encoder.tokenize_cached(split) for name, split in data.splits().items() if isinstance(split, Pairs)
    }
    lengths = encoded["train"].lengths if "train" in encoded else np.empty(0, np.int64)
    return model.to("meta"), lengths
