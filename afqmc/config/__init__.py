"""Configs: composed by Hydra over a typed schema, checked, saved, loaded again."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Optional

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config.dataset_source import check_source as check_source
from afqmc.config.dataset_source import default_dataset_url as default_dataset_url
from afqmc.config.error_messages import format_hydra_error, unknown_key
from afqmc.config.help import conf_dir as conf_dir
from afqmc.config.overrides import literal, quote_overrides
from afqmc.config.renamed_keys import upgrade_nested
from afqmc.config.safe_yaml import check_yaml_limits
from afqmc.config.schema import Config as Config
from afqmc.config.schema import check as check
from afqmc.config.yaml_checks import check_files
from afqmc.data.config import Source
from afqmc.evaluation.metric_names import higher_is_better
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user, write_text
from afqmc.utils.redaction import redacted_argument

_SLUG_LENGTH = 60

log = logging.getLogger(__name__)


def register() -> None:
    """Make the schema and the ``slug`` resolver known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def compose(overrides: list[str], config_dir: Optional[Path] = None, config_name: str = "config") -> Config:
    """What ``python -m afqmc.run`` would run with these overrides, and with its flags of these names.

    Raises:
        InputError: naming what is wrong in them.
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
    """Overrides as a directory name, top-level keys first: ``model.pooling=max lr=1e-5`` is ``lr-1e-5_pooling-max``.

    Of a key that is given twice the last value counts, as it does for the run.
    """
    last = {key.lstrip("+"): value for key, _, value in (redacted_argument(item).partition("=") for item in overrides)}
    last.pop("resume", None)  # the same run, whether it starts or goes on
    short = (f"{key.rpartition('.')[2]}={last[key]}" for key in sorted(last, key=lambda key: "." in key))
    names = (re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.+") for name in short)
    return _as_fit([name for name in names if name]).rstrip("-_.") or "default"


def _as_fit(names: list[str]) -> str:
    """As many as fit, the first of them at least in part, up to the end of a word where that leaves most of it."""
    found = "".join(names[:1])[:_SLUG_LENGTH]
    if found != "".join(names[:1]):
        end = max(found.rfind("-"), found.rfind("."))
        return found[:end] if end > _SLUG_LENGTH // 2 else found
    for name in names[1:]:
        if len(found) + 1 + len(name) > _SLUG_LENGTH:
            break
        found += f"_{name}"
    return found


def to_config(node: DictConfig, labelled: bool = True) -> Config:
    """A composed node as plain dataclasses, checked.

    Args:
        node: With or without the schema.
        labelled: Whether labels are read.

    Raises:
        InputError: naming the key and the legal range.
    """
    try:
        _refuse_added(node, Config())
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), node))
    except OmegaConfBaseException as error:
        raise InputError(format_hydra_error(error)) from error
    assert isinstance(config, Config)
    check(config, labelled)
    return config


def _refuse_added(node: DictConfig, like: Any, prefix: str = "") -> None:
    """Hydra's ``+key=value`` adds keys to typed nodes too, where nothing would read them."""
    known = {item.name: getattr(like, item.name) for item in fields(like)}
    for key in map(str, node):
        if key not in known:
            raise InputError(unknown_key(f"{prefix}{key}", known))
        if is_dataclass(known[key]):
            _refuse_added(node[key], known[key], f"{prefix}{key}.")


def save(config: Config, path: Path) -> None:
    """Write it resolved, so that ``load`` gives it back equal."""
    write_text(path, as_text(config))


def as_text(config: Config) -> str:
    """Resolved, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def parse(text: str) -> Config:
    """What ``as_text`` gave."""
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    return to_config(node)


def to_container(config: Config) -> dict[str, Any]:
    """Plain containers, enums by name, for trackers."""
    found = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def load(run_dir: Path) -> Config:
    """The config of a run directory.

    Raises:
        InputError: when there is none, or it is not one of this version.
    """
    path = RunDir(run_dir).config
    if not path.exists():
        raise InputError(f"{run_dir}: not a run directory (it has no config.yaml)")
    content = check_yaml_limits(path)
    try:
        node = OmegaConf.create(content.decode("utf-8"))
    except Exception as error:  # the YAML library has many
        raise InputError(f"{path}: not readable YAML: {error}") from error
    if not isinstance(node, DictConfig):
        raise InputError(f"{path}: not a run's config")
    for key, value in _texts(OmegaConf.to_container(node, resolve=False)):
        if "${" in value:  # it could read this machine's environment, and comes from anybody
            raise InputError(f"{path}: {key}={value}: a saved config is literal; interpolations are not resolved here")
    node = OmegaConf.create(upgrade_nested(_as_dict(node)))
    _correct_mode(node, path)
    try:
        return to_config(node)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _as_dict(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _correct_mode(node: DictConfig, path: Path) -> None:
    """Load the config of an older run whose ``trainer.mode`` contradicts its metric, which is refused today."""
    mode, monitor = OmegaConf.select(node, "trainer.mode"), str(OmegaConf.select(node, "trainer.monitor"))
    if mode in ("max", "min") and (mode == "max") != higher_is_better(monitor):
        log.warning("%s: trainer.mode=%s: checkpoints/best holds the WORST epoch by %s", path, mode, monitor)
        node.trainer.mode = "auto"


def _texts(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text of plain containers, keys of mappings too, with where it is."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield prefix + str(key), str(key)
            yield from _texts(value, f"{prefix}{key}.")
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, prefix)
    elif isinstance(node, str):
        yield prefix.rstrip("."), node


def with_absolute_paths(config: Config) -> Config:
    """The same config with absolute paths, so that it means the same in any directory."""
    dataset, model = config.dataset, config.model
    changes: dict[str, Any] = {name: _absolute(getattr(dataset, name)) for name in ("path", "cache_dir")}
    if dataset.path is None and dataset.source is Source.files:
        changes |= {name: _absolute(getattr(dataset, name)) for name in ("train_file", "dev_file", "test_file")}
    name = model.name_or_path
    local = name is not None and os.path.isdir(expand_user(name))
    return replace(
        config,
        dataset=replace(dataset, **changes),
        model=replace(model, name_or_path=_absolute(name) if local else name),
    )


def _absolute(path: Optional[str]) -> Optional[str]:
    return None if path is None else str(expand_user(path).absolute())


def drop_hydra_node(config: DictConfig) -> DictConfig:
    """The composed config less Hydra's own node."""
    keys = [str(key) for key in config if key != "hydra"]
    masked = OmegaConf.masked_copy(config, keys)
    assert isinstance(masked, DictConfig)
    return masked
