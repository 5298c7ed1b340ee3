"""Checks that the files a config names can be where its data set is, before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from afqmc.config.help import conf_dir
from afqmc.data.config import DatasetConfig, Source
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user

_FILES = ("train_file", "dev_file", "test_file")
_COLUMNS = ("columns", "sentence1_field", "sentence2_field", "label_field")


def default_dataset_url() -> str:
    """Where the packaged config downloads AFQMC from."""
    return str(_packaged("afqmc").url)


def check_source(dataset: DatasetConfig, overrides: Iterable[str]) -> None:
    """Check that no file of the user is looked for in a download or in the embedded sample.

    Args:
        dataset: As composed.
        overrides: Of the command line. A file of the user may have the name of one in the download.

    Raises:
        InputError: naming the key, and how to use files of one's own.
    """
    if dataset.source is Source.files or (dataset.source is Source.download and dataset.path is not None):
        return
    is_sample = dataset.source is Source.sample
    if dataset.path is not None:
        raise InputError(
            f"dataset.path={dataset.path}: not with dataset=sample, which is embedded; "
            "dataset=afqmc dataset.path=... for AFQMC's files, dataset=jsonl dataset.path=... for files of your own"
        )
    is_official = is_sample or dataset.url == default_dataset_url()
    usual = _packaged("sample" if is_sample else "afqmc")
    held = [str(usual[key]) for key in _FILES]
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key in _FILES:
        name = getattr(dataset, key)
        if name is None:
            continue
        is_users = f"dataset.{key}" in given and os.path.isfile(expand_user(name))
        if is_users or expand_user(name).is_absolute() or (is_official and name not in held):
            has = f", which has {', '.join(held)}" if is_official else ""
            raise InputError(f"dataset.{key}={name}: {_told(is_sample)}{has}; {_hint(dataset, held, given)}")
    for key in _COLUMNS:
        value = getattr(dataset, key)
        if is_official and value != usual.get(key, getattr(DatasetConfig, key)):
            raise InputError(f"dataset.{key}={value}: {_told(is_sample)}; {_hint(dataset, held, given)}")


def _told(is_sample: bool) -> str:
    return "dataset=sample is the embedded data" if is_sample else "the data set is a download"


def _hint(dataset: DatasetConfig, held: list[str], given: set[str]) -> str:
    """The overrides for files of one's own."""
    named = [key for key in _FILES if f"dataset.{key}" in given or getattr(dataset, key) not in (None, *held)]
    files = [f"dataset.{key}={getattr(dataset, key)}" for key in named]
    return f"for files of your own: dataset=jsonl {' '.join(files) or 'dataset.train_file=... dataset.dev_file=...'}"


@cache
def _packaged(name: str) -> DictConfig:
    node = OmegaConf.load(Path(conf_dir()) / "dataset" / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    return node
