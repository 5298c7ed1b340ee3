"""A finished run, loaded in a fresh process to score or predict other pairs, with its own precision and batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

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
from afqmc.dataset.splits import Pairs, index_of, locate, read_split, to_columns
from afqmc.errors import InputError, blamed_on
from afqmc.evaluation import Evaluation, evaluate
from afqmc.rundir import RunDir
from afqmc.train.config import Device
from afqmc.train.hardware import adapt, build_accelerator, choose


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
        choice = choose(config.trainer)
        adapt(loaded.model, choice, config.trainer)
        accelerator = build_accelerator(choice, config.trainer, config.seed)
        model = accelerator.prepare(loaded.model)
        return cls(config, loaded.labels, model, Encoder(loaded.tokenizer, config.dataset.max_length), accelerator)

    def read(self, file: Optional[Path], labelled: Optional[bool], key: str = "") -> Pairs:
        """The pairs of a file, or of the run's own dev split; ``key`` is where a person named the file.

        Raises:
            InputError: naming the file and line.
        """
        index = index_of(self.labels)
        if file is None:
            return self._own_dev(index)
        found = DataFile.on_disk(file, self.config.dataset, key)
        pairs = to_columns(found.name, list(read_pairs(found, self.config.dataset, labelled=labelled)), index)
        if len(pairs) == 0:
            raise InputError(f"{file}: holds no pairs")
        return pairs

    def _own_dev(self, index: dict[str, int]) -> Pairs:
        """The dev split that the directory names; from an address of its own only what is in the cache already."""
        dataset = self.config.dataset
        try:
            own = _located(dataset)["dev"]
        except InputError as error:
            raise InputError(f"{error}\n  other pairs:     --data FILE") from error
        return to_columns(own.name, list(read_split(dataset, "dev", own)), index)

    def score(self, pairs: Pairs) -> Evaluation:
        """Logits, and metrics where the pairs are labelled."""
        device = next(self.model.parameters()).device
        with CountBar(len(pairs), Path(pairs.file).name) as bar, self.accelerator.autocast():
            encoded = self.encoder.encode(pairs)
            return evaluate(self.model, encoded, self.encoder, self.config.trainer.eval_batch_size, device, bar.add)


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
