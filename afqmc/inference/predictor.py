"""A finished run, loaded in a fresh process to score or predict other pairs, with its own precision and batches."""

from __future__ import annotations

import io
import logging
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
from accelerate import Accelerator
from torch import nn

from afqmc import config as schema
from afqmc.checkpoint.weights import Loaded, load_weights
from afqmc.config import Config
from afqmc.config.reading_options import with_reading_options
from afqmc.data.config import DatasetConfig
from afqmc.data.loading import Pairs, label_to_index, load_dev, reject_empty, resolve_files, to_columns
from afqmc.data.parsing import OnRow, read_pairs
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.evaluator import Evaluation, evaluate
from afqmc.evaluation.metrics import mean_as_logits, probabilities_of
from afqmc.run_dir import RunDir
from afqmc.training.config import Device, DistributedConfig
from afqmc.training.device import build_accelerator, prepare_model, select_device
from afqmc.training.process_checks import check_launcher
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError, as_input_error

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """The best weights of a run, on their device, and what is needed to feed them."""

    config: Config
    labels: tuple[str, ...]
    model: nn.Module
    encoder: PairTokenizer
    accelerator: Accelerator

    @classmethod
    def open(
        cls,
        run_dir: Path,
        device: Optional[str] = None,
        trust: bool = False,
        reading: Sequence[str] = (),
        labelled: bool = True,
    ) -> Predictor:
        """Load a run directory; nothing in it is unpickled or executed unless ``trust``.

        Args:
            run_dir: Where it is.
            device: In place of the run's own.
            trust: Allow code that it names.
            reading: Overrides ``dataset.key=value`` of how files are read.
            labelled: Whether their labels are read.

        Raises:
            InputError: when it is not one, has no weights, or asks for code.
        """
        config = with_reading_options(read_config(RunDir(run_dir)), list(reading), labelled)
        if device is not None:
            config.trainer.device = Device[device]
        loaded = read_weights(RunDir(run_dir).best, config, trust)
        config.distributed = DistributedConfig()  # one process does what several did
        choice = select_device(config.trainer)
        check_launcher(choice.device, None)
        prepare_model(loaded.model, choice, config.trainer, config.performance)
        accelerator = build_accelerator(choice, config.trainer, config.distributed, config.seed)
        model = accelerator.prepare(loaded.model)
        return cls(
            config, loaded.labels, model, PairTokenizer(loaded.tokenizer, config.dataset.max_length), accelerator
        )

    def read(self, file: Optional[Path], labelled: Optional[bool], key: str = "") -> Pairs:
        """The pairs of a file, or of the run's own dev split; ``key`` is where a person named the file.

        Raises:
            InputError: naming the file and line.
        """
        if file is None:
            return self._own_dev()
        return self.read_file(data_file(file, self.config.dataset, key), labelled)

    def read_file(self, file: DataFile, labelled: Optional[bool], keep: Optional[OnRow] = None) -> Pairs:
        """The pairs of a file; ``keep`` is called with all columns of each row.

        Raises:
            InputError: naming the file and line.
        """
        index, report = label_to_index(self.labels), ReadReport(file.name)
        rows = read_pairs(file, self.config.dataset, labelled=labelled, index=index, report=report, on_row=keep)
        pairs = to_columns(file.name, rows, index, report)
        reject_empty(report, len(pairs))
        for note in (*file.notes, *report.notes()):
            log.warning("%s: %s", file.name, note)
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
            size = self.config.trainer.eval_batch_size
            evaluation = evaluate(self.model, encoded, self.encoder, size, device, bar.add)
        if told := evaluation.describe_missing(Path(pairs.file).name):
            log.warning("%s: they have no prediction, and metrics are undefined", told)
        return evaluation


@dataclass(frozen=True)
class EnsembleScores:
    """Pairs and the mean of what runs say of them.

    Attributes:
        pairs: As the first run reads them.
        labels: Names in class order.
        logits: (N, C): those of one run, or the logarithms of the mean probabilities of several.
        runs: How many.
    """

    pairs: Pairs
    labels: tuple[str, ...]
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(N, C), float64; NaN where there is no prediction."""
        return probabilities_of(self.logits)

    def refuse_nan(self) -> None:
        """Refuse probabilities that are none: the first label would be taken for the prediction.

        Raises:
            InputError: counting them.
        """
        if bad := int((~np.isfinite(self.probabilities)).any(axis=1).sum()):
            raise InputError(f"the weights give NaN for {bad} of {len(self.pairs)} pairs; nothing is written")


def predict_mean(
    run_dirs: Sequence[Path],
    read: Callable[[Predictor], Pairs],
    device: Optional[str] = None,
    trust: bool = False,
    reading: Sequence[str] = (),
    labelled: bool = True,
) -> EnsembleScores:
    """The mean of the runs' probabilities for the same pairs; one run is loaded at a time.

    Args:
        run_dirs: Where they are.
        read: Reads the pairs, called with the first run.
        device: As for ``TrainedRun.open``, like the others.
        trust: Likewise.
        reading: Likewise.
        labelled: Likewise.

    Raises:
        InputError: where one is no run, or does not have the labels of the first, in the same order.
    """
    first: Predictor | None = None
    found: list[np.ndarray] = []
    for path in run_dirs:
        run = Predictor.open(path, device, trust, reading, labelled)
        if first is None:
            first, pairs = run, read(run)
        if run.labels != first.labels:
            told = f"{', '.join(run.labels)}, {run_dirs[0]} has {', '.join(first.labels)}"
            raise InputError(f"{path}: its labels are {told}; a mean needs the same, in the same order")
        found.append(run.score(pairs).logits)
    assert first is not None
    return EnsembleScores(pairs, first.labels, found[0] if len(found) == 1 else mean_as_logits(found))


def data_file(path: Path, dataset: DatasetConfig, key: str = "") -> DataFile:
    """A file on disk; ``-`` is standard input, which like any pipe is read to its end at once.

    Raises:
        InputError: when it cannot be read.
    """
    is_input = str(path) == "-"
    try:
        if not is_input and not stat.S_ISFIFO(path.stat().st_mode):
            return DataFile.on_disk(path, dataset, key)
        with open(0 if is_input else path, "rb", closefd=not is_input) as stream:
            content = stream.read()
    except (OSError, ValueError):
        return DataFile.on_disk(path, dataset, key)  # says why
    return DataFile("standard input" if is_input else str(path), lambda: io.BytesIO(content), dataset.format_of(path))


def read_config(run: RunDir) -> Config:
    """The config of a run that comes from anybody.

    Raises:
        InputError: for whatever may be wrong with it.
    """
    with as_input_error(f"{run.config}: not a run's config"):
        return schema.load(run.path)


def read_weights(best: Path, config: Config, trust: bool) -> Loaded:
    """The checkpoint of a run that comes from anybody; see ``afqmc.checkpoint.safety``.

    Raises:
        InputError: for whatever may be wrong with it.
    """
    with as_input_error(f"{best}: not usable"):
        return load_weights(best, config.model, trust)


def _located(dataset: DatasetConfig) -> dict[str, DataFile]:
    """The files of a data set, fetched from the official address alone, and into the cache of whoever asks."""
    try:
        return resolve_files(dataset, fetch=False)
    except InputError:
        if dataset.url != schema.default_dataset_url():
            raise
        return resolve_files(replace(dataset, cache_dir=None))
