"""Checks that the files and columns of a config belong to its data set, before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from afqmc.data.config import DatasetConfig, Source
from afqmc.utils.command_help import conf_dir
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user

_FILES = ("train_file", "dev_file", "test_file")
_COLUMNS = ("columns", "sentence1_field", "sentence2_field", "label_field")


def default_dataset_url() -> str:
    """Return the URL that the packaged config downloads AFQMC from."""
    return str(_packaged("afqmc").url)


def check_source(dataset: DatasetConfig, overrides: Iterable[str]) -> None:
    """Check that a config with a download or with the sample names no files or columns of the user's own data.

    Args:
        dataset: As composed.
        overrides: ``key=value`` arguments of the command line. They tell a local file that the user named from a file
            of the same name in the download.

    Raises:
        InputError: naming the key, and the overrides for the user's own files.
    """
    if dataset.source is Source.files or (dataset.source is Source.url and dataset.path is not None):
        return
    is_sample = dataset.source is Source.sample
    if dataset.path is not None:
        raise InputError(
            f"dataset.path={dataset.path}: not with dataset=sample, which is embedded; "
            "dataset=afqmc dataset.path=... for AFQMC's files, dataset=files dataset.path=... for your own files"
        )
    is_official = is_sample or dataset.url == default_dataset_url()
    packaged = _packaged("sample" if is_sample else "afqmc")
    available = [str(packaged[key]) for key in _FILES]
    overridden = {override.lstrip("+").partition("=")[0] for override in overrides}
    source = "dataset=sample is the embedded data" if is_sample else "the data set is a download"
    for key in _FILES:
        name = getattr(dataset, key)
        if name is None:
            continue
        is_users = f"dataset.{key}" in overridden and os.path.isfile(expand_user(name))
        if is_users or expand_user(name).is_absolute() or (is_official and name not in available):
            has = f", which has {', '.join(available)}" if is_official else ""
            raise InputError(f"dataset.{key}={name}: {source}{has}; {_hint(dataset, available, overridden)}")
    for key in _COLUMNS:
        value = getattr(dataset, key)
        if is_official and value != packaged.get(key, getattr(DatasetConfig, key)):
            raise InputError(f"dataset.{key}={value}: {source}; {_hint(dataset, available, overridden)}")


def _hint(dataset: DatasetConfig, available: list[str], overridden: set[str]) -> str:
    """Return the overrides that would read the user's own files."""
    keys = [key for key in _FILES if f"dataset.{key}" in overridden or getattr(dataset, key) not in (None, *available)]
    files = [f"dataset.{key}={getattr(dataset, key)}" for key in keys]
    return f"for your own files: dataset=files {' '.join(files) or 'dataset.train_file=... dataset.dev_file=...'}"


@cache
def _packaged(name: str) -> DictConfig:
    node = OmegaConf.load(Path(conf_dir()) / "dataset" / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    return node
