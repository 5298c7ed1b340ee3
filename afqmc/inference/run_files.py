"""Read what an untrusted run directory has and names: its config, weights and decision, and files of pairs."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import replace
from pathlib import Path

from afqmc import config as schema
from afqmc.checkpoint.weights import Loaded, load_weights
from afqmc.config import Config
from afqmc.data.config import DatasetConfig
from afqmc.data.loading import Pairs, load_dev, resolve_files
from afqmc.data.sources import DataFile
from afqmc.evaluation.decision import DECISION_FILE, Decision
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import SMALL, read_json


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


def read_dev_here(run: RunDir, labels: tuple[str, ...]) -> Pairs:
    """Read the dev split of a run without a download.

    Raises:
        InputError: if it is not on this machine.
    """
    dataset = load_run_config(run).dataset
    return load_dev(dataset, resolve_files(dataset, fetch=False), labels)


def resolve_dataset(dataset: DatasetConfig) -> dict[str, DataFile]:
    """Find the files of a dataset. A missing one is downloaded only from the official address.

    The config is untrusted: it must not choose another address, nor where on this machine a download is written.
    """
    try:
        return resolve_files(dataset, fetch=False)
    except InputError:
        if dataset.url != schema.default_dataset_url():
            raise
        return resolve_files(replace(dataset, cache_dir=None))
