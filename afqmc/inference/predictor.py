"""Load the best weights of a finished run, to evaluate and predict with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from afqmc.config import Config
from afqmc.config.reading_options import with_reading_options
from afqmc.data.config import Swap
from afqmc.data.loading import Pairs, label_to_index, load_dev, reject_empty, to_columns
from afqmc.data.parsing import OnRow, check_sentence, read_pairs
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.decision import CrossFit, Decided, Decision
from afqmc.evaluation.evaluator import Evaluation, evaluate
from afqmc.evaluation.metrics import probabilities_of
from afqmc.evaluation.predictions import CALIBRATED, DECIDED, prediction_rows
from afqmc.inference.engine_choice import EngineChoice, select_engine
from afqmc.inference.engines import TORCH
from afqmc.inference.explanation import Explanation, explain_pair
from afqmc.inference.run_files import (
    load_run_config,
    open_data_file,
    read_decision,
    read_dev_here,
    read_weights,
    resolve_dataset,
)
from afqmc.models.cpu_kernels import keep_linear_weights_in_bf16
from afqmc.run_dir import RunDir
from afqmc.training.config import Device, DistributedConfig, MixedPrecision
from afqmc.training.device import DeviceConfig, build_accelerator, prepare_model, select_device
from afqmc.training.process_checks import check_launcher
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

_BAR_FROM = 1000  # pairs of ``predict`` and ``probabilities`` from which a terminal shows a progress bar
_CPU = DeviceConfig("cpu", "no", "")  # of engines other than torch


@dataclass(frozen=True)
class Predictor:
    """The best weights of a finished run on their device. It uses the precision and batch size of that run.

    Threads may share a predictor: one at a time uses the model, and the others wait.

    Attributes:
        config: The run's config, with the overrides given to ``load``.
        labels: Label names, in class order.
        model: Prepared for its device.
        pair_tokenizer: Makes the model's input.
        accelerator: Holds the precision.
        decision: Calibration and threshold of the run; None with ``decision=none``, and in runs of earlier versions.
        engine: What computes the logits.
    """

    config: Config
    labels: tuple[str, ...]
    model: nn.Module
    pair_tokenizer: PairTokenizer
    accelerator: Accelerator
    decision: Decision | None = None
    engine: EngineChoice = EngineChoice()
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def engine_note(self) -> str:
        """Which engine was chosen; "" if none was asked for."""
        return self.engine.note

    @property
    def threshold(self) -> float | None:
        """The calibrated probability above which the second of two labels is predicted; None with more labels."""
        if self.decision is not None:
            return self.decision.threshold
        return 0.5 if len(self.labels) == 2 else None

    @classmethod
    def load(
        cls,
        run_dir: str | Path,
        device: str | None = None,
        trust: bool = False,
        reading: Sequence[str] = (),
        labelled: bool = True,
        precision: str | None = None,
        engine: str | EngineChoice = TORCH,
    ) -> Predictor:
        """Load an untrusted run directory. Nothing in it is unpickled, and no code is run unless ``trust`` is set.

        Args:
            run_dir: The run directory.
            device: Replaces the device in the run's config.
            trust: Allow the model code that the config names.
            reading: Overrides ``dataset.key=value`` that change how files are read.
            labelled: Whether labels will be read from files.
            precision: Replaces ``trainer.mixed_precision`` of the run's config.
            engine: ``torch``, another engine of ``afqmc.inference.engines``, ``auto``, the directory of an export, or
                the choice of another predictor.

        Raises:
            InputError: if this is not a run directory, it has no usable weights, or they need code that is not trusted.
        """
        run = RunDir(Path(run_dir))
        config = with_reading_options(load_run_config(run), list(reading), labelled)
        if device is not None:
            config.trainer.device = Device[device]
        if precision is not None:
            config.trainer.mixed_precision = MixedPrecision[precision]
        loaded = read_weights(run.best, config, trust)
        decision = read_decision(run.best, len(loaded.labels))
        pair_tokenizer = PairTokenizer(loaded.tokenizer, config.dataset.max_length)
        config.distributed = DistributedConfig()  # evaluate and predict use one process
        choice = select_device(config.trainer)
        chosen = EngineChoice()
        if engine != TORCH:
            read_dev = partial(read_dev_here, run, loaded.labels)
            module, chosen = select_engine(engine, run, loaded, pair_tokenizer, choice, read_dev)
            if module is not None:
                accelerator = build_accelerator(_CPU, config.trainer, config.distributed, config.seed)
                return cls(config, loaded.labels, module, pair_tokenizer, accelerator, decision, chosen)
        check_launcher(choice.device, None)
        prepare_model(loaded.model, choice, config.trainer, config.performance)
        accelerator = build_accelerator(choice, config.trainer, config.distributed, config.seed)
        model = accelerator.prepare(loaded.model).eval()
        if choice.device == "cpu" and accelerator.mixed_precision == "bf16":
            keep_linear_weights_in_bf16(model)
        return cls(config, loaded.labels, model, pair_tokenizer, accelerator, decision, chosen)

    @property
    def swaps(self) -> bool:
        """Whether a prediction is the mean over both orders of the sentences."""
        return self.config.dataset.swap is Swap.both

    def read_pairs(self, path: Path | None, labelled: bool | None, key: str = "", on_row: OnRow | None = None) -> Pairs:
        """Read a file of pairs with the column names of the run.

        Args:
            path: The file, or ``-`` for standard input. None reads the dev split of the run.
            labelled: Whether labels are required (True), ignored (False), or read if the file has them (None).
            key: The option that names the file, for messages.
            on_row: Called with all columns of each row.

        Raises:
            InputError: with the file and line of what cannot be read.
        """
        if path is None:
            return self._read_dev()
        file = open_data_file(path, self.config.dataset, key)
        index, report = label_to_index(self.labels), ReadReport(file.name)
        rows = read_pairs(file, self.config.dataset, labelled=labelled, index=index, report=report, on_row=on_row)
        pairs = to_columns(file.name, rows, index, report)
        reject_empty(report, len(pairs))
        for note in (*file.notes, *report.notes()):
            log.warning("%s: %s", file.name, note)
        return pairs

    def _read_dev(self) -> Pairs:
        """Read the dev split that the config names."""
        dataset = self.config.dataset
        try:
            files = resolve_dataset(dataset)
        except InputError as error:
            raise InputError(f"{error}\n  other pairs:     --data FILE") from error
        return load_dev(dataset, files, self.labels)

    def predict(self, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return one row per pair of sentences.

        A row has ``id`` (the position, from 0), ``logits`` (one per class), ``probability`` (of the second label if
        there are two, else of each; calibrated if the run has a decision), and ``prediction`` (a label name, by the
        threshold of the run if it has one). Rows of pairs that were cut to the maximum length also have ``truncated``,
        which is true.

        Raises:
            InputError: if there is no pair, or a sentence is not a text or empty; names the pair.
        """
        columns = _as_pairs(pairs)
        evaluation = self.evaluate(columns, show_progress=len(columns) >= _BAR_FROM)
        logits, truncated = evaluation.logits, evaluation.truncated
        assert truncated is not None
        rows = prediction_rows(range(len(logits)), logits, None, self.labels, decided=self.decide(logits))
        for row, is_cut in zip(rows, truncated.tolist(), strict=True):
            row |= {"probability": row.pop(CALIBRATED), "prediction": row.pop(DECIDED)}
            row |= {"truncated": True} if is_cut else {}
        return rows

    def decide(self, logits: np.ndarray) -> Decided:
        """Return the outcome for logits (N, C); without a decision, the likeliest label."""
        if self.decision is not None:
            return self.decision.apply(logits)
        return Decided(probabilities_of(logits), logits.argmax(axis=1))

    def cross_fit(self, dev: Pairs) -> CrossFit | None:
        """Return the parts of dev on which the run cross-fitted its decision; None without a decision."""
        return None if self.decision is None else CrossFit.of(dev, self.decision.metric, self.config.decision.folds)

    def probabilities(self, pairs: Iterable[tuple[str, str]]) -> np.ndarray:
        """Return the probability of each label, (N, C) float64; NaN in rows whose logits are not finite.

        They are calibrated if the run has a decision.

        Raises:
            InputError: as ``predict``.
        """
        return self.decide(self._logits(_as_pairs(pairs))).probabilities

    def explain(self, sentence1: str, sentence2: str) -> Explanation:
        """Return how much each word of a pair contributes to the probability, by leaving it out.

        With two labels, the explained probability is that of the second, else that of the predicted label. The cost is
        one pair per word, and one for the whole pair. See ``afqmc.inference.explanation``.

        Raises:
            InputError: as ``predict``.
        """
        pairs = _as_pairs([(sentence1, sentence2)])

        def probabilities(columns: Pairs) -> np.ndarray:
            return self.decide(self._logits(columns)).probabilities

        return explain_pair(probabilities, pairs.sentence1[0], pairs.sentence2[0], self.labels)

    def _logits(self, pairs: Pairs) -> np.ndarray:
        return self.evaluate(pairs, show_progress=len(pairs) >= _BAR_FROM).logits

    def evaluate(self, pairs: Pairs, bar: CountBar | None = None, show_progress: bool = True) -> Evaluation:
        """Compute logits and, if the pairs are labelled, metrics. Advances ``bar``, or shows a progress bar of its own.

        A run with ``dataset.swap=both`` gives the mean of both orders of the sentences.
        """
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        both_orders = self.swaps
        total = len(pairs) * (1 + both_orders)
        own_bar = CountBar(total, Path(pairs.file).name, show_progress) if bar is None else nullcontext(bar)
        with self._lock, own_bar as shown, self.accelerator.autocast():
            tokenized = self.pair_tokenizer.encode(pairs)
            swapped = self.pair_tokenizer.encode(pairs.swapped()) if both_orders else None
            batch_size = self.config.trainer.eval_batch_size
            evaluation = evaluate(
                self.model, tokenized, self.pair_tokenizer, batch_size, device, shown.add, swapped=swapped
            )
        evaluation = replace(evaluation, truncated=self.pair_tokenizer.truncated(pairs, tokenized))
        if problem := evaluation.describe_missing(Path(pairs.file).name):
            log.warning("%s: they have no prediction, and metrics are undefined", problem)
        return evaluation


def check_pair(pair: object) -> None:
    """Check that a pair is two texts that can be predicted, by the rules for the rows of files.

    Raises:
        ValueError: with what is wrong. The message does not have the pair.
    """
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(_is_text, pair)):
        raise ValueError("must be two texts that are not empty")
    for number, text in enumerate(pair, 1):
        check_sentence(f"sentence{number}", text)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _as_pairs(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Check the pairs of a caller.

    Raises:
        InputError: naming the first invalid one.
    """
    listed = [tuple(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else pair for pair in pairs]
    if not listed:
        raise InputError("pairs: must not be empty")
    for index, pair in enumerate(listed):
        try:
            check_pair(pair)
        except ValueError as error:
            raise InputError(f"pairs[{index}]={pair!r}: {error}") from None
    first, second = ([pair[side] for pair in listed] for side in (0, 1))
    return Pairs("pairs", [*range(len(listed))], first, second, None)
