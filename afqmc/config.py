"""The schema: the sum of the parts' own dataclasses; composed by Hydra, checked, saved, loaded again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.dataset.config import Batching, DatasetConfig
from afqmc.errors import InputError, did_you_mean
from afqmc.knobs import check_ranges, knob
from afqmc.metrics import NAMES as METRICS
from afqmc.model.config import ModelConfig
from afqmc.rundir import RunDir
from afqmc.tracker import TrackerConfig
from afqmc.train.config import TrainerConfig, check_class_weights

_SLUG_LENGTH = 60


@dataclass
class Config:
    """A whole run. What people sweep is at the top; every other knob lives in its group."""

    lr: float = knob(1e-5, "peak learning rate", gt=0, le=10)
    batch_size: int = knob(4, "pairs an optimizer step", ge=1)
    epochs: int = knob(3, "passes over the training pairs", ge=1)
    seed: int = knob(42, "of weights, order and dropout", ge=0, lt=2**32)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


def conf_dir() -> str:
    """The directory of the YAML files: inside the installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def register() -> None:
    """Make the schema and the ``slug`` resolver known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def compose(overrides: list[str]) -> Config:
    """What ``python -m afqmc.run`` would run with these overrides.

    Raises:
        InputError: naming what is wrong in them.
    """
    register()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return to_config(hydra_compose("config", overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error)) from error


def slug(overrides: list[str]) -> str:
    """Overrides as a directory name, top-level keys first: ``model.pooling=max lr=1e-5`` is ``lr-1e-5_pooling-max``."""
    pairs = [override.partition("=")[::2] for override in overrides]
    pairs.sort(key=lambda pair: "." in pair[0])
    short = (f"{key.rpartition('.')[2]}={value}" for key, value in pairs)
    names = (re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.+") for name in short)
    return "_".join(name for name in names if name)[:_SLUG_LENGTH].rstrip("-_.") or "default"


def to_config(node: DictConfig) -> Config:
    """A composed node as plain dataclasses, checked.

    Raises:
        InputError: naming the key and the legal range.
    """
    try:
        _refuse_added(node, Config())
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), node))
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    assert isinstance(config, Config)
    check(config)
    return config


def _refuse_added(node: DictConfig, like: Any, prefix: str = "") -> None:
    """Hydra's ``+key=value`` adds keys to typed nodes too, where nothing would read them."""
    known = {item.name: getattr(like, item.name) for item in fields(like)}
    for key in map(str, node):
        if key not in known:
            raise InputError(f"{prefix}{key}: no such key{did_you_mean(key, known)}")
        if is_dataclass(known[key]):
            _refuse_added(node[key], known[key], f"{prefix}{key}.")


def check(config: Config) -> None:
    """Everything about a config that can be said without loading anything.

    Raises:
        InputError: naming the key, what was found and what is legal.
    """
    check_ranges(config)
    trainer = config.trainer
    legal = [f"dev/{name}" for name in METRICS if name != "majority_accuracy"]
    if trainer.monitor not in legal:
        raise InputError(f"trainer.monitor={trainer.monitor}: no such metric{did_you_mean(trainer.monitor, legal)}")
    if trainer.gradient_accumulation_steps > config.batch_size:
        raise InputError(
            f"trainer.gradient_accumulation_steps={trainer.gradient_accumulation_steps}: must be <= batch_size="
            f"{config.batch_size}; batch_size is the whole batch of a step, and is worked through in that many parts"
        )
    _check_batching(config.dataset)
    check_class_weights(trainer.class_weights, len(config.dataset.labels) if config.dataset.labels else None)


def _check_batching(dataset: DatasetConfig) -> None:
    if dataset.batching is not Batching.tokens:
        return
    if dataset.streaming:
        raise InputError("dataset.batching=tokens: not with dataset.streaming=true; legal there: random, bucketed")
    if dataset.batch_tokens < dataset.max_length:
        raise InputError(
            f"dataset.batch_tokens={dataset.batch_tokens}: must be >= dataset.max_length={dataset.max_length}, "
            "or the longest pair fits no batch"
        )


def save(config: Config, path: Path) -> None:
    """Write it resolved, so that ``load`` gives it back equal."""
    OmegaConf.save(OmegaConf.structured(config), path)


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
    if not path.is_file():
        raise InputError(f"{run_dir}: not a run directory (it has no config.yaml)")
    try:
        node = OmegaConf.load(path)
    except Exception as error:  # the YAML library has many
        raise InputError(f"{path}: not readable YAML: {error}") from error
    if not isinstance(node, DictConfig):
        raise InputError(f"{path}: not a run's config")
    return to_config(node)


class RunDirectoryGuard(Callback):
    """Refuses what can be refused before Hydra makes or touches the output directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and the directory.

        Raises:
            Refused: since Hydra turns any Exception of a callback into a warning.
        """
        try:
            to_config(without_hydra(config))
            RunDir(Path(config.hydra.run.dir)).refuse_occupied()
        except InputError as error:
            raise Refused(str(error)) from error
        except OmegaConfBaseException as error:
            raise Refused(explain(error)) from error


class Refused(BaseException):
    """An InputError on its way through code that swallows exceptions."""


def without_hydra(config: DictConfig) -> DictConfig:
    """The composed config less Hydra's own node."""
    keys = [str(key) for key in config if key != "hydra"]
    masked = OmegaConf.masked_copy(config, keys)
    assert isinstance(masked, DictConfig)
    return masked


def explain(error: BaseException) -> str:
    """One message for what Hydra or OmegaConf refused, with the nearest valid name where a name was wrong."""
    causes: list[BaseException] = [error]
    while isinstance(cause := causes[-1].__cause__, HydraException | OmegaConfBaseException):
        causes.append(cause)
    text, last = "\n".join(str(cause) for cause in causes), causes[-1]
    if isinstance(error, Refused):
        return text
    if isinstance(error, MissingConfigException):
        return _explain_missing(text)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read: {text.splitlines()[0]} (quote spaces, commas, brackets)"
    if group := _first(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
        return f"{group}: no such group{did_you_mean(group, [item.name for item in fields(Config)])}"
    key = _first(r"full_key: (\S+)", text)
    if isinstance(last, OmegaConfBaseException) and re.search(r"Key '[^']+' (is not in struct|not in)", text):
        return _explain_unknown(key, last)
    reason = next((line for line in str(last).splitlines() if line.strip()), text)
    if isinstance(last, OmegaConfBaseException) and key:
        wrong = _first(r"Error merging override (\S+)", text)
        return f"{wrong if wrong.startswith(key) else key}: {reason[:1].lower()}{reason[1:]}"
    return text.splitlines()[0] if len(causes) == 1 else f"{text.splitlines()[0]}: {reason}"


def _explain_unknown(key: str, error: OmegaConfBaseException) -> str:
    """An unknown key beside the keys there are; the groups that take any argument say how to add one."""
    prefix, _, name = key.rpartition(".")
    parent = error.parent_node
    names = [str(item) for item in parent] if isinstance(parent, DictConfig) else [item.name for item in fields(Config)]
    hint = did_you_mean(name, [item for item in names if item != "hydra"])
    added = f" (+{key}=... passes a further argument to its _target_)" if prefix in ("optimizer", "scheduler") else ""
    return f"{key}: no such key{hint}{added}"


def _explain_missing(text: str) -> str:
    """An option that a group does not have, beside those it has."""
    option = _first(r"Could not (?:find|load) '([^']+)'", text)
    listed = text.partition("Available options in")[2]
    options = [line.strip() for line in listed.splitlines()[1:] if re.fullmatch(r"\s+[\w./-]+", line)]
    group, _, name = option.rpartition("/")
    if not options:
        return text.strip().splitlines()[0]
    hint = did_you_mean(name, options)
    return f"{group}={name}: no such {group}{hint}" + (f" There are: {', '.join(options)}" if "did you" in hint else "")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""
