"""Load the best weights of a finished run, to evaluate and predict with them."""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from afqmc import config as schema
from afqmc.checkpoint.weights import Loaded, load_weights
from afqmc.config import Config
from afqmc.config.reading_options import with_reading_options
from afqmc.data.config import DatasetConfig, Swap
from afqmc.data.loading import Pairs, label_to_index, load_dev, reject_empty, resolve_files, to_columns
from afqmc.data.parsing import OnRow, check_sentence, read_pairs
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.abstention import Abstention
from afqmc.evaluation.decision import DECISION_FILE, CrossFit, Decided, Decision
from afqmc.evaluation.evaluator import Evaluation, evaluate
from afqmc.evaluation.metrics import mean_as_logits, probabilities_of
from afqmc.evaluation.predictions import CALIBRATED, DECIDED, prediction_rows
from afqmc.inference.engine_choice import EngineChoice, select_engine
from afqmc.inference.engines import TORCH
from afqmc.inference.explanation import Explanation, explain_pair
from afqmc.run_dir import RunDir
from afqmc.training.config import Device, DistributedConfig, MixedPrecision
from afqmc.training.device import DeviceConfig, build_accelerator, prepare_model, select_device
from afqmc.training.process_checks import check_launcher
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import SMALL, read_json

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
        engine: str = "torch",
    ) -> Predictor:
        """Load an untrusted run directory. Nothing in it is unpickled, and no code is run unless ``trust`` is set.

        Args:
            run_dir: The run directory.
            device: Replaces the device in the run's config.
            trust: Allow the model code that the config names.
            reading: Overrides ``dataset.key=value`` that change how files are read.
            labelled: Whether labels will be read from files.
            precision: Replaces ``trainer.mixed_precision`` of the run's config.
            engine: ``torch``, another engine of ``afqmc.inference.engines``, ``auto``, or the directory of an export.

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
            read_dev = partial(_read_dev_here, run, loaded.labels)
            module, chosen = select_engine(engine, run, loaded, pair_tokenizer, choice, read_dev)
            if module is not None:
                accelerator = build_accelerator(_CPU, config.trainer, config.distributed, config.seed)
                return cls(config, loaded.labels, module, pair_tokenizer, accelerator, decision, chosen)
        check_launcher(choice.device, None)
        prepare_model(loaded.model, choice, config.trainer, config.performance)
        accelerator = build_accelerator(choice, config.trainer, config.distributed, config.seed)
        model = accelerator.prepare(loaded.model)
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
            files = _resolve_dataset(dataset)
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


@dataclass(frozen=True)
class EnsembleScores:
    """Pairs with the prediction of one run, or the mean of several.

    Attributes:
        pairs: As the first run reads them.
        labels: Label names, in class order.
        logits: (N, C): those of one run, or the logarithms of the mean probabilities of several.
        decision: Of one run, or fitted on the mean; the temperature of a run fits only its own probabilities.
        has_unused_decisions: Whether any run of a mean has a decision, and the mean has none.
        abstention: Leaves uncertain pairs without a prediction; None predicts all.
        engine_notes: Which engines were chosen, if one was asked for.
        truncated: Which pairs were cut to the maximum length of any run, bool (N,); None if no pair was.
        max_length: The smallest one of the runs, in tokens.
    """

    pairs: Pairs
    labels: tuple[str, ...]
    logits: np.ndarray
    decision: Decision | None = None
    has_unused_decisions: bool = False
    abstention: Abstention | None = None
    engine_notes: tuple[str, ...] = ()
    truncated: np.ndarray | None = None
    max_length: int = 0

    @property
    def probabilities(self) -> np.ndarray:
        """(N, C), float64, without the decision; NaN in rows without a prediction."""
        return probabilities_of(self.logits)

    @cached_property
    def decided(self) -> Decided:
        """Probabilities and predictions to show to the user.

        With ``abstention``, they are those of the model: its promise holds for the likeliest label only, since the
        threshold of the decision was chosen on the same dev pairs.
        """
        if self.decision is not None and self.abstention is None:
            return replace(self.decision.apply(self.logits), truncated=self.truncated)
        abstained = None if self.abstention is None else self.abstention.abstains(self.logits)
        return Decided(self.probabilities, self.logits.argmax(axis=1), abstained, self.truncated)

    def truncation_warning(self) -> str:
        """Return a warning with the number of pairs that were cut; "" if no pair was."""
        count = 0 if self.truncated is None else int(self.truncated.sum())
        return truncation_warning(count, len(self.pairs), self.max_length) if count else ""

    def describe_decision(self) -> str | None:
        """Say which threshold and calibration were used, or which error rate is promised; None without a decision."""
        if self.abstention is not None:
            return self.abstention.describe(self.abstention.abstains(self.logits).sum(), len(self.pairs))
        if self.decision is not None:
            return self.decision.describe_use()
        if self.has_unused_decisions:
            return (
                "the likeliest label of the mean is predicted: the threshold and the temperature of a run do not fit a "
                "mean of several"
            )
        return None

    def reject_nan(self) -> None:
        """Check that each pair has a prediction. The argmax of a row of NaN would be the first label.

        Raises:
            InputError: with the number of pairs whose probabilities are not finite.
        """
        if missing := int((~np.isfinite(self.probabilities)).any(axis=1).sum()):
            raise InputError(f"the weights give NaN for {missing} of {len(self.pairs)} pairs; nothing is written")


def truncation_warning(count: int, pairs: int, max_length: int) -> str:
    """Return the warning that pairs were cut, which the column ``truncated`` marks."""
    return f"{count} of {pairs} pairs have more than {max_length} tokens and were cut; the column truncated marks them"


def predict_mean(
    run_dirs: Sequence[Path],
    read: Callable[[Predictor], Pairs],
    device: str | None = None,
    trust: bool = False,
    reading: Sequence[str] = (),
    labelled: bool = True,
    engine: str = "torch",
) -> EnsembleScores:
    """Average the probabilities of several runs for the same pairs. One run at a time is in memory.

    ``read`` is called once, with the first run. The other arguments are those of ``Predictor.load``.

    Raises:
        InputError: if a run cannot be loaded, or its labels differ from those of the first run, or in their order.
    """
    first: Predictor | None = None
    logits: list[np.ndarray] = []
    notes: list[str] = []
    has_decisions, truncated = False, np.zeros(0, bool)
    for run_dir in run_dirs:
        predictor = Predictor.load(run_dir, device, trust, reading, labelled, engine=engine)
        if first is None:
            first, pairs = predictor, read(predictor)
            truncated, max_length = np.zeros(len(pairs), bool), predictor.pair_tokenizer.max_length
        if predictor.labels != first.labels:
            difference = f"{', '.join(predictor.labels)}, {run_dirs[0]} has {', '.join(first.labels)}"
            raise InputError(f"{run_dir}: its labels are {difference}; a mean needs the same, in the same order")
        has_decisions |= predictor.decision is not None
        evaluation = predictor.evaluate(pairs)
        logits.append(evaluation.logits)
        truncated |= evaluation.truncated
        max_length = min(max_length, predictor.pair_tokenizer.max_length)
        notes += [predictor.engine_note] if predictor.engine_note else []
    assert first is not None
    is_single = len(logits) == 1
    return EnsembleScores(
        pairs,
        first.labels,
        logits[0] if is_single else mean_as_logits(logits),
        decision=first.decision if is_single else None,
        has_unused_decisions=has_decisions and not is_single,
        engine_notes=tuple(dict.fromkeys(notes)),
        truncated=truncated if truncated.any() else None,
        max_length=max_length,
    )


def open_data_file(path: Path, dataset: DatasetConfig, key: str = "") -> DataFile:
    """Open a file of pairs. Standard input (``-``) and pipes are read to their end, since they can be read only once.

    Raises:
        InputError: if the file cannot be read.
    """
    is_stdin = str(path) == "-"
    try:
        if not is_stdin and not stat.S_ISFIFO(path.stat().st_mode):
            return DataFile.on_disk(path, dataset, key)
        with open(0 if is_stdin else path, "rb", closefd=not is_stdin) as stream:
            content = stream.read()
    except (OSError, ValueError):
        return DataFile.on_disk(path, dataset, key)  # raises an InputError with the reason
    return DataFile("standard input" if is_stdin else str(path), lambda: io.BytesIO(content), dataset.format_of(path))


def load_run_config(run: RunDir) -> Config:
    """Read the config of an untrusted run directory.

    Raises:
        InputError: if it is missing or invalid in any way.
    """
    with as_input_error(f"{run.config}: not a run's config"):
        config = schema.load(run.path)
    if config.masking.unit is not None:
        raise InputError(
            f"{run.path}: is a run of afqmc.pretrain, which has no classifier; afqmc.run model=pretrained "
            f"model.name_or_path={run.path} trains one"
        )
    return config


def read_weights(best: Path, config: Config, trust: bool) -> Loaded:
    """Load the best weights of an untrusted run directory; see ``afqmc.checkpoint.safety``.

    Raises:
        InputError: if they are missing or invalid in any way.
    """
    with as_input_error(f"{best}: not usable"):
        return load_weights(best, config.model, trust)


def read_decision(best: Path, num_labels: int) -> Decision | None:
    """Read decision.json of an untrusted run directory; return None if there is none.

    Raises:
        InputError: in one line, if it is invalid in any way.
    """
    path = best / DECISION_FILE
    if not os.path.lexists(path):
        return None
    with as_input_error(f"{path}: not readable as JSON"):
        content = read_json(path, SMALL)
    try:
        return Decision.from_dict(content, num_labels)
    except InputError as error:
        raise InputError(f"{path}: invalid: {error}") from error


def _read_dev_here(run: RunDir, labels: tuple[str, ...]) -> Pairs:
    """Read the dev split of a run without a download.

    Raises:
        InputError: if it is not on this machine.
    """
    dataset = load_run_config(run).dataset
    return load_dev(dataset, resolve_files(dataset, fetch=False), labels)


def _resolve_dataset(dataset: DatasetConfig) -> dict[str, DataFile]:
    """Find the files of a dataset. A missing one is downloaded only from the official address.

    The config is untrusted: it must not choose another address, nor where on this machine a download is written.
    """
    try:
        return resolve_files(dataset, fetch=False)
    except InputError:
        if dataset.url != schema.default_dataset_url():
            raise
        return resolve_files(replace(dataset, cache_dir=None))
