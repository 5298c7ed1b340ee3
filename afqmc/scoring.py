"""A finished run, loaded in a fresh process to score or predict other pairs, with its own precision and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
from accelerate import Accelerator
from torch import nn

from afqmc import config as schema
from afqmc.batching.tokens import Encoder
from afqmc.checkpoint.weights import Loaded, load_weights
from afqmc.config import Config
from afqmc.console import CountBar
from afqmc.dataset.config import DatasetConfig
from afqmc.dataset.files import DataFile
from afqmc.dataset.pairs import read_pairs
from afqmc.dataset.splits import Pairs, index_of, load_dev, locate, to_columns
from afqmc.errors import InputError, blamed_on
from afqmc.evaluation import Evaluation, evaluate
from afqmc.metrics.classification import probabilities_of
from afqmc.rundir import RunDir
from afqmc.train.config import Device
from afqmc.train.division import alone
from afqmc.train.hardware import adapt, build_accelerator, choose
from afqmc.train.launcher import check_launcher


@dataclass(frozen=True)
class TrainedRun:
    """The best weights of a run, on their device, and what is needed to feed them."""

    config: Config
    labels: tuple[str, ...]
    model: nn.Module
    encoder: Encoder
    accelerator: Accelerator

    @classmethod
    def open(cls, run_dir: Path, device: Optional[str] = None, trust: bool = False) -> TrainedRun:
        """Load a run directory; nothing in it is unpickled or executed unless ``trust``.

        Raises:
            InputError: when it is not one, has no weights, or asks for code.
        """
        config = read_config(RunDir(run_dir))
        if device is not None:
            config.trainer.device = Device[device]
        loaded = read_weights(RunDir(run_dir).best, config, trust)
        config.trainer = alone(config.trainer)
        choice = choose(config.trainer)
        check_launcher(choice.device, choice.precision)
        adapt(loaded.model, choice, config.trainer)
        accelerator = build_accelerator(choice, config.trainer, config.seed)
        model = accelerator.prepare(loaded.model)
        return cls(config, loaded.labels, model, Encoder(loaded.tokenizer, config.dataset.max_length), accelerator)

    def read(self, file: Optional[Path], labelled: Optional[bool], key: str = "") -> Pairs:
        """The pairs of a file, or of the run's own dev split; ``key`` is where a person named the file.

        Raises:
            InputError: naming the file and line.
        """
        if file is None:
            return self._own_dev()
        index = index_of(self.labels)
        found = DataFile.on_disk(file, self.config.dataset, key)
        pairs = to_columns(found.name, list(read_pairs(found, self.config.dataset, labelled=labelled)), index)
        if len(pairs) == 0:
            raise InputError(f"{file}: holds no pairs")
        return pairs

    def _own_dev(self) -> Pairs:
        """The dev split that the directory names; from an address of its own only what is in the cache already."""
        dataset = self.config.dataset
        try:
            files = _located(dataset)
        except InputError as error:
            raise InputError(f"{error}\n  other pairs:     --data FILE") from error
        return load_dev(dataset, files, self.labels)

    def score(self, pairs: Pairs) -> Evaluation:
        """Logits, and metrics where the pairs are labelled."""
        device = next(self.model.parameters()).device
        with CountBar(len(pairs), Path(pairs.file).name) as bar, self.accelerator.autocast():
            encoded = self.encoder.encode(pairs)
            return evaluate(self.model, encoded, self.encoder, self.config.trainer.eval_batch_size, device, bar.add)


@dataclass(frozen=True)
class Scored:
    """Pairs and the mean of what runs say of them.

    Attributes:
        pairs: As the first run reads them.
        labels: Names in class order.
        probabilities: (N, C), float64.
    """

    pairs: Pairs
    labels: tuple[str, ...]
    probabilities: np.ndarray


def score_together(
    run_dirs: Sequence[Path], file: Path, labelled: bool, key: str, device: Optional[str] = None, trust: bool = False
) -> Scored:
    """The mean of the runs' probabilities for the pairs of a file; one run is loaded at a time.

    Raises:
        InputError: where one is no run, or does not have the labels of the first, in the same order.
    """
    first: TrainedRun | None = None
    found: list[np.ndarray] = []
    for path in run_dirs:
        run = TrainedRun.open(path, device, trust)
        if first is None:
            first, pairs = run, run.read(file, labelled, key)
        if run.labels != first.labels:
            told = f"{', '.join(run.labels)}, {run_dirs[0]} has {', '.join(first.labels)}"
            raise InputError(f"{path}: its labels are {told}; a mean needs the same, in the same order")
        found.append(probabilities_of(run.score(pairs).logits))
    assert first is not None
    return Scored(pairs, first.labels, np.mean(found, axis=0))


def read_config(run: RunDir) -> Config:
    """The config of a run that comes from anybody.

    Raises:
        InputError: for whatever may be wrong with it.
    """
    with blamed_on(f"{run.config}: not a run's config"):
        return schema.load(run.path)


def read_weights(best: Path, config: Config, trust: bool) -> Loaded:
    """The checkpoint of a run that comes from anybody; see ``afqmc.inspection``.

    Raises:
        InputError: for whatever may be wrong with it.
    """
    with blamed_on(f"{best}: not usable"):
        return load_weights(best, config.model, trust)


def _located(dataset: DatasetConfig) -> dict[str, DataFile]:
    """The files of a data set, fetched from the official address alone, and into the cache of whoever asks."""
    try:
        return locate(dataset, fetch=False)
    except InputError:
        if dataset.url != schema.official_address():
            raise
        return locate(replace(dataset, cache_dir=None))
