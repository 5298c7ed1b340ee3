"""Composing, checking, saving and loading the config of a run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config.dataset_source import check_source
from afqmc.config.error_messages import format_hydra_error, unknown_key
from afqmc.config.overrides import literal, quote_overrides
from afqmc.config.renamed_keys import upgrade_nested
from afqmc.config.safe_yaml import check_yaml_limits
from afqmc.config.schema import Config, check_config
from afqmc.config.yaml_checks import check_files
from afqmc.data.config import Source
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.run_dir import RunDir
from afqmc.utils.command_help import conf_dir
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user, write_text
from afqmc.utils.redaction import redacted_argument

_SLUG_LENGTH = 60
_PATHS = ("path", "cache_dir", "teacher", "unlabelled_file")  # of the dataset group, relative to the working directory

log = logging.getLogger(__name__)


@cache
def register() -> None:
    """Register the schema and the ``slug`` resolver with Hydra, once per process."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def compose(overrides: list[str], config_dir: Path | None = None, config_name: str = "config") -> Config:
    """Return the config that ``python -m afqmc.run`` would run.

    Args:
        overrides: ``key=value`` arguments of the command line.
        config_dir: The value of ``--config-dir``.
        config_name: The value of ``--config-name``.

    Raises:
        InputError: naming the override that is invalid.
    """
    if config_dir is not None:
        if not config_dir.is_dir():
            raise InputError(f"--config-dir {config_dir}: no such directory")
        overrides = [f"hydra.searchpath=[{literal(f'file://{config_dir.absolute()}')}]", *overrides]
    overrides = quote_overrides(overrides)
    check_files(overrides, [config_dir] if config_dir else [])
    register()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = to_config(hydra_compose(config_name, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(format_hydra_error(error)) from error
    check_source(config.dataset, overrides)
    return config


def slug(overrides: list[str]) -> str:
    """Turn overrides into a directory name: ``model.pooling=max lr=1e-5`` becomes ``lr-1e-5_pooling-max``.

    Top-level keys come first. If a key is repeated, its last value counts, as in the run.
    """
    last = {key.lstrip("+"): value for key, _, value in (redacted_argument(item).partition("=") for item in overrides)}
    last.pop("resume", None)  # a run has the same name whether it starts or resumes
    short = (f"{key.rpartition('.')[2]}={last[key]}" for key in sorted(last, key=lambda key: "." in key))
    names = (re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.+") for name in short)
    return _join_names([name for name in names if name]).rstrip("-_.") or "default"


def _join_names(names: list[str]) -> str:
    """Join as many names as fit; a first name that is too long is cut, at a word boundary where one is near."""
    full = "".join(names[:1])
    joined = full[:_SLUG_LENGTH]
    if joined != full:
        end = max(joined.rfind("-"), joined.rfind("."))
        return joined[:end] if end > _SLUG_LENGTH // 2 else joined
    for name in names[1:]:
        if len(joined) + 1 + len(name) > _SLUG_LENGTH:
            break
        joined += f"_{name}"
    return joined


def to_config(node: DictConfig, labelled: bool = True) -> Config:
    """Convert a composed node to dataclasses and check it.

    Args:
        node: With or without the schema.
        labelled: Whether labels are read from the data.

    Raises:
        InputError: naming the key and its allowed range.
    """
    try:
        _reject_added_keys(node, Config())
        config = OmegaConf.to_object(OmegaConf.merge(_schema(), node))
    except OmegaConfBaseException as error:
        raise InputError(format_hydra_error(error)) from error
    assert isinstance(config, Config)
    check_config(config, labelled)
    return config


@cache
def _schema() -> DictConfig:
    """Return the schema as a node; OmegaConf.merge copies it."""
    node = OmegaConf.structured(Config)
    assert isinstance(node, DictConfig)
    return node


def _reject_added_keys(node: DictConfig, config: Any, prefix: str = "") -> None:
    """Reject keys outside of the schema: Hydra's ``+key=value`` adds them to typed nodes, where nothing reads them."""
    known = {item.name: getattr(config, item.name) for item in fields(config)}
    for key in map(str, node):
        if key not in known:
            raise InputError(unknown_key(f"{prefix}{key}", known))
        if is_dataclass(known[key]):
            _reject_added_keys(node[key], known[key], f"{prefix}{key}.")


def save(config: Config, path: Path) -> None:
    """Write a config as resolved YAML; ``load`` returns an equal one."""
    write_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    """Return a config as resolved YAML."""
    return OmegaConf.to_yaml(to_container(config))


def parse(text: str) -> Config:
    """Return the config that ``as_text`` turned into YAML."""
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    return to_config(node)


def to_container(config: Config) -> dict[str, Any]:
    """Return a config as plain containers with enums by name, for trackers."""
    return {item.name: _plain(getattr(config, item.name)) for item in fields(config)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def load(run_dir: Path) -> Config:
    """Return the config of a run directory, which may be untrusted.

    Raises:
        InputError: if there is none, or it is invalid in this version.
    """
    path = RunDir(run_dir).config
    if not os.path.lexists(run_dir):
        raise InputError(f"{run_dir}: no such directory")
    if (run_dir / "sweep.json").exists():
        raise InputError(f"{run_dir}: a sweep; to resume it, run its command again with the same sweep.name")
    if not path.exists():
        raise InputError(f"{run_dir}: not a run directory (it has no config.yaml)")
    content = check_yaml_limits(path)
    try:
        node = OmegaConf.create(content.decode("utf-8"))
    except Exception as error:  # PyYAML raises many types
        raise InputError(f"{path}: not readable YAML: {error}") from error
    if not isinstance(node, DictConfig):
        raise InputError(f"{path}: not a run's config")
    container = _as_dict(node)
    for key, value in _strings(container):
        if "${" in value:  # an interpolation could read this machine's environment
            raise InputError(f"{path}: {key}={value}: a saved config is literal; interpolations are not resolved here")
    node = OmegaConf.create(upgrade_nested(container))
    _correct_mode(node, path)
    try:
        return to_config(node)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _as_dict(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _correct_mode(node: DictConfig, path: Path) -> None:
    """Reset a ``trainer.mode`` that contradicts the metric. Older versions allowed it; the schema no longer does."""
    mode, monitor = OmegaConf.select(node, "trainer.mode"), str(OmegaConf.select(node, "trainer.monitor"))
    if mode in ("max", "min") and (mode == "max") != higher_is_better(monitor):
        log.warning("%s: trainer.mode=%s: checkpoints/best holds the WORST epoch by %s", path, mode, monitor)
        node.trainer.mode = "auto"


def _strings(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key of every string in plain containers with the string; keys of mappings are strings too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield prefix + str(key), str(key)
            yield from _strings(value, f"{prefix}{key}.")
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, prefix)
    elif isinstance(node, str):
        yield prefix.rstrip("."), node


def with_absolute_paths(config: Config) -> Config:
    """Return a copy with absolute paths, which is valid in any working directory."""
    dataset, model = config.dataset, config.model
    changes: dict[str, Any] = {name: _absolute(getattr(dataset, name)) for name in _PATHS}
    if dataset.path is None and dataset.source is Source.files:
        changes |= {name: _absolute(getattr(dataset, name)) for name in ("train_file", "dev_file", "test_file")}
    name = model.name_or_path
    is_local = name is not None and os.path.isdir(expand_user(name))
    return replace(
        config,
        dataset=replace(dataset, **changes),
        model=replace(model, name_or_path=_absolute(name) if is_local else name),
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(expand_user(path).absolute())


def drop_hydra_node(config: DictConfig) -> DictConfig:
    """Return a composed config without Hydra's own node."""
    masked = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    assert isinstance(masked, DictConfig)
    return masked
