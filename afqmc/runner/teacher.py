"""Read the predictions of a teacher: a sweep over the folds of the training file (``dataset.teacher``).

Each training pair gets the logits of the models that were not trained on it, because a model is too certain of labels
that it has seen. Unlabelled pairs are scored by the best weights of all runs. The directory may be untrusted: nothing
in it is unpickled, and no code that it names is run.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from afqmc import config as schema
from afqmc.checkpoint.weights import load_weights
from afqmc.data.batching import Shard
from afqmc.data.columns import Ints
from afqmc.data.config import DatasetConfig, Swap
from afqmc.data.folds import labelled_digest
from afqmc.data.loading import Dataset, reject_empty
from afqmc.data.pairs import UNLABELLED, Pairs, to_columns
from afqmc.data.parsing import read_pairs
from afqmc.data.quality import unordered_hashes
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.data.tokenization import PairTokenizer
from afqmc.distributed.collectives import broadcast_object
from afqmc.evaluation.evaluator import evaluate
from afqmc.evaluation.metrics import mean_as_logits
from afqmc.results.ensemble_predictions import out_of_fold, require_complete, require_one_setting
from afqmc.results.runs import Run, find_runs, reject_pretraining
from afqmc.results.untrusted_files import read_object
from afqmc.run_dir import RunDir
from afqmc.training.config import PerformanceConfig, TrainerConfig
from afqmc.training.device import DeviceConfig, prepare_model
from afqmc.utils.console import CountBar
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.files import expand_user, write_bytes
from afqmc.utils.safe_files import check_regular

log = logging.getLogger(__name__)


def find_teacher(directory: str) -> list[Run]:
    """Return the runs of the sweep.

    Raises:
        InputError: if a run is incomplete, or they are not the folds of one setting.
    """
    try:
        runs = find_runs([directory])
        reject_pretraining(runs)
        setting = require_one_setting(require_complete(runs, skip_incomplete=False))
    except InputError as error:
        raise InputError(f"dataset.teacher={directory}: {error}") from error
    if not setting.has_folds:
        raise InputError(
            f"dataset.teacher={directory}: its runs are not folds; it must be a sweep over dataset.fold, such as -m "
            "dataset.num_folds=5 dataset.fold=0,1,2,3,4"
        )
    return list(setting.runs)


def with_out_of_fold_logits(train: Pairs, labels: Sequence[str], teacher: Sequence[Run], directory: str) -> Pairs:
    """Return the pairs with the logits of the runs that held them out, averaged over seeds as probabilities.

    Raises:
        InputError: if the teacher has other labels, or was trained on other pairs; names the run.
    """
    digest = labelled_digest(train)
    for run in teacher:
        folds = read_object(run.path / "summary.json").get("folds")
        if not isinstance(folds, dict) or folds.get("sha256") != digest:
            pairs = folds.get("pairs") if isinstance(folds, dict) else None
            raise InputError(
                f"dataset.teacher={directory}: {run.name} was trained on other pairs than {train.file}, or on other "
                f"labels: folds of {pairs} pairs, this run has {len(train)}"
            )
    try:
        rows = out_of_fold(teacher).rows
    except InputError as error:
        raise InputError(f"dataset.teacher={directory}: {error}") from error
    if tuple(rows.classes) != tuple(labels):
        raise InputError(
            f"dataset.teacher={directory}: its labels are {', '.join(rows.classes)}, this run has {', '.join(labels)}"
        )
    row_of = {pair_id: row for row, pair_id in enumerate(rows.ids)}
    if missing := [pair_id for pair_id in train.ids if pair_id not in row_of]:
        raise InputError(f"dataset.teacher={directory}: has no prediction for the pair with id {missing[0]!r}")
    return replace(train, teacher_logits=rows.logits[[row_of[pair_id] for pair_id in train.ids]].astype(np.float32))


def read_unlabelled(config: DatasetConfig, data: Dataset) -> tuple[Pairs, int]:
    """Return the pairs of ``dataset.unlabelled_file``, whose teacher logits are still NaN, and how many are left out.

    Pairs of train and dev, in either order, and repeated pairs are left out.

    Raises:
        InputError: naming the file and the line of what cannot be read, or if no pair is left.
    """
    assert config.unlabelled_file is not None
    file = DataFile.on_disk(expand_user(config.unlabelled_file), config, "dataset.unlabelled_file")
    report = ReadReport(file.name)
    pairs = to_columns(file.name, read_pairs(file, config, labelled=False, report=report), {}, report)
    reject_empty(report, len(pairs))
    for note in (*file.notes, *report.notes()):
        log.warning("%s: %s", file.name, note)
    assert isinstance(data.train, Pairs)
    labelled = np.concatenate([unordered_hashes(data.train), unordered_hashes(data.dev)])
    keys, first = np.unique(unordered_hashes(pairs), return_index=True)
    rows = np.sort(first[~np.isin(keys, labelled)])
    if not len(rows):
        raise InputError(f"dataset.unlabelled_file={file.name}: all its pairs are in train or dev; leave it out")
    logits = np.full((len(rows), len(data.labels)), np.nan, np.float32)
    unlabelled = replace(
        pairs.select(rows, file.name), labels=Ints(np.full(len(rows), UNLABELLED)), teacher_logits=logits
    )
    return unlabelled, len(pairs) - len(rows)


def score_unlabelled(
    train: Pairs,
    labels: Sequence[str],
    teacher: Sequence[Run],
    accelerator: Accelerator,
    choice: DeviceConfig,
    batch_size: int,
    saved: Path | None,
    resumed: bool,
) -> Pairs:
    """Return the training pairs with the mean probabilities of all runs for the unlabelled ones.

    Several processes share the work. The logits are saved, and a resumed run reads them, since computing them again
    with another number of threads could change their last bits.

    Args:
        train: The pairs to train on.
        labels: Label names, in class order.
        teacher: The runs, one of which is in memory at a time.
        accelerator: Device, precision and processes of this run.
        choice: Its device.
        batch_size: Pairs per forward pass.
        saved: File of the logits; None in ranks that write nothing.
        resumed: Whether to read that file.

    Raises:
        InputError: if the weights of a run cannot be loaded, or have other labels.
    """
    assert train.teacher_logits is not None
    rows = np.flatnonzero(np.isnan(train.teacher_logits[:, 0]))
    shape = (len(rows), len(labels))
    logits: np.ndarray | None = None
    if resumed and saved is not None and saved.exists():
        with as_input_error(f"{saved}: not usable"):
            check_regular(saved)
            logits = np.load(saved, allow_pickle=False)
            if logits.shape != shape or logits.dtype != np.float32 or not np.isfinite(logits).all():
                raise InputError(f"{saved}: has not the teacher's logits of {shape[0]} pairs")
    logits = broadcast_object(accelerator, logits)
    if logits is None:
        pairs = replace(train.select(rows.tolist(), train.file), labels=None)
        members = [_logits_of(run, pairs, labels, accelerator, choice, batch_size) for run in teacher]
        logits = mean_as_logits(members).astype(np.float32)
        if saved is not None:
            content = io.BytesIO()
            np.save(content, logits, allow_pickle=False)
            write_bytes(saved, content.getvalue())
    all_logits = train.teacher_logits.copy()
    all_logits[rows] = logits
    return replace(train, teacher_logits=all_logits)


def _logits_of(
    run: Run, pairs: Pairs, labels: Sequence[str], accelerator: Accelerator, choice: DeviceConfig, batch_size: int
) -> np.ndarray:
    """Return the logits of the best weights of one run, (N, C)."""
    run_dir = RunDir(run.path)
    with as_input_error(f"{run_dir.path}: not usable as a teacher"):
        config = schema.load(run_dir.path)
        if config.model._target_ is not None:
            raise InputError(
                f"{run_dir.path}: model._target_={config.model._target_} is untrusted code; with "
                "dataset.unlabelled_file, a teacher needs a model without it"
            )
        loaded = load_weights(run_dir.best, config.model)
    if loaded.labels != tuple(labels):
        raise InputError(f"{run_dir.path}: its labels are {', '.join(loaded.labels)}, this run has {', '.join(labels)}")
    prepare_model(loaded.model, choice, TrainerConfig(), PerformanceConfig())
    model = loaded.model.to(accelerator.device)
    pair_tokenizer = PairTokenizer(loaded.tokenizer, config.dataset.max_length)
    swapped = pair_tokenizer.encode(pairs.swapped()) if config.dataset.swap is Swap.both else None
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    passes = 1 if swapped is None else 2
    with CountBar(passes * len(pairs), run.name) as bar, accelerator.autocast():
        evaluation = evaluate(
            model, pair_tokenizer.encode(pairs), pair_tokenizer, batch_size, accelerator.device, bar.add, shard, swapped
        )
    if problem := evaluation.describe_missing("unlabelled"):
        raise InputError(f"{run_dir.path}: not usable as a teacher: {problem}")
    return evaluation.logits
