"""The record of the sentences that an encoder was pretrained on, against which a run's dev and test are checked."""

from __future__ import annotations

from afqmc.data.loading import Dataset
from afqmc.data.sentences import PRETRAINING_FILE, count_pretrained
from afqmc.models.config import ModelConfig
from afqmc.models.files import local_directory
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import LARGE, read_bytes


def pretrained_hashes(model: ModelConfig) -> set[str]:
    """Return the hashes of the sentences that ``afqmc pretrain`` has trained this model's weights on; empty for others.

    Raises:
        InputError: when the record cannot be read.
    """
    if model.from_scratch or model.name_or_path is None or (directory := local_directory(model.name_or_path)) is None:
        return set()
    record = directory / PRETRAINING_FILE
    if not record.exists():
        return set()
    with as_input_error(f"{record}: not readable"):
        return set(read_bytes(record, LARGE).decode("ascii").split())


def check_not_pretrained_on(model: ModelConfig, data: Dataset) -> None:
    """Check that an encoder of ``afqmc pretrain`` was not pretrained on sentences of this run's dev or test split.

    Raises:
        InputError: with the number of such sentences.
    """
    hashes = pretrained_hashes(model)
    for split, pairs in (("dev", data.dev), ("test", data.test)):
        if pairs is not None and hashes and (count := count_pretrained(pairs, hashes)):
            raise InputError(
                f"model.name_or_path={model.name_or_path}: was pretrained on {count} sentences of this run's {split} "
                "split; pretrain it with the dataset keys of this run (files, num_folds, fold, split_seed)"
            )
