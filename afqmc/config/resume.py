"""Going on with a run: from its own config, in which only what cannot change its result may be changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Optional

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import compose, load, to_config, with_absolute_paths
from afqmc.config.error_messages import format_hydra_error
from afqmc.config.help import options
from afqmc.config.overrides import literal, quote_overrides
from afqmc.config.schema import Config
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user
from afqmc.utils.targets import KNOWN

AUTO = "auto"
_KEY = "resume="
_FREE = (  # what cannot change a result, or only one that there would not be
    "tracker", "sweep", "dataset.path", "dataset.cache_dir",
    "checkpoint", "distributed", "trainer.auto_microbatch", "trainer.gradient_checkpointing", "trainer.eval_batch_size",
    "trainer.on_nonfinite", "trainer.max_nonfinite", "trainer.rollback_lr_factor",
)  # fmt: skip
_ANOTHER = "cannot be changed: that would be another run; to start one, leave resume= out and name a new directory"
_MAY_GROW = ("epochs", "trainer.max_steps")
_SHOWING = ("--cfg", "-c", "--info", "-i")


@dataclass(frozen=True)
class Resume:
    """``resume=RUN_DIR`` of a command line, and its other overrides."""

    directory: Path
    overrides: list[str]

    def config(self) -> Config:
        """The run's own config with these overrides.

        Raises:
            InputError: naming the first override that would make it another run.
        """
        saved = load(self.directory)
        trusted, rest = _without_trust(self.overrides)
        if not trusted:
            _refuse_foreign_code(saved, self.directory)
        return merge_for_resume(saved, _changed(saved, rest))


def parse_resume(arguments: list[str]) -> tuple[Optional[Resume], list[str]]:
    """What ``resume=RUN_DIR`` asks for, if it is there, and the arguments that Hydra gets.

    Raises:
        InputError: when there is no run, or it is not one run that is asked for.
    """
    found = [argument.removeprefix(_KEY) for argument in arguments if argument.startswith(_KEY)]
    if not found or found[-1] in (AUTO, "null", ""):
        return None, arguments
    directory = expand_user(found[-1].strip("'\""))
    rest = [argument for argument in arguments if not argument.startswith(_KEY)]
    if {"-m", "--multirun"} & set(rest):
        raise InputError(f"resume={directory}: goes on with one run; for a sweep: -m resume=auto hydra.sweep.dir=DIR")
    if showing := [argument for argument in rest if argument in _SHOWING]:
        raise InputError(f"{showing[0]}: not with resume=; the run's config is {RunDir(directory).config}")
    if elsewhere := [argument for argument in rest if argument.startswith("hydra.run.dir=")]:
        raise InputError(f"{elsewhere[0]}: not with resume=RUN_DIR, which goes on where the run is")
    load(directory)
    RunDir(directory).reject_escaping_links()  # before the first line of the log is written
    place = literal(str(directory.absolute()))
    for_hydra = [argument for argument in rest if argument.startswith(("-", "hydra."))]
    ours = [argument for argument in rest if argument not in for_hydra]
    given = [*for_hydra, f"hydra.run.dir={place}", f"resume={place}", "hydra.output_subdir=null"]
    return Resume(directory, ours), given


def _without_trust(overrides: list[str]) -> tuple[bool, list[str]]:
    return "trust=true" in overrides, [override for override in overrides if not override.startswith("trust=")]


def _refuse_foreign_code(config: Config, directory: Path) -> None:
    """The directory may be a stranger's: what it names is imported from well-known libraries alone."""
    targets = {
        "model": config.model._target_,
        "optimizer": config.optimizer.get("_target_"),
        "scheduler": config.scheduler.get("_target_"),
        "objective": config.objective.get("_target_"),
    }
    targets |= {f"callbacks.{name}": entry.get("_target_") for name, entry in config.callbacks.items() if entry}
    for group, target in targets.items():
        if target is not None and not str(target).startswith(KNOWN[group.partition(".")[0]] or "\0"):
            raise InputError(f"{directory}: {group}._target_={target} is code from elsewhere; trust=true runs it")


def _changed(saved: Config, overrides: list[str]) -> Config:
    """The saved config with overrides of keys, and of the ``tracker`` group."""
    try:
        parsed = OverridesParser.create().parse_overrides(quote_overrides(overrides))
        node = OmegaConf.structured(saved)
        for override in parsed:
            key, told = override.key_or_group, str(override.input_line)
            if override.is_add() or override.is_delete() or override.is_force_add() or override.is_sweep_override():
                raise InputError(f"{told}: not with resume=; a key that may change is given as key=value")
            if key == "tracker":
                node.tracker = compose([str(told)]).tracker
            elif options(key):
                raise InputError(f"{told}: resume= goes on with the run's own {key}; it cannot be changed")
            else:
                OmegaConf.update(node, key, override.value(), merge=True, force_add=False)
        return to_config(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(format_hydra_error(error)) from error


def merge_for_resume(saved: Config, wanted: Config) -> Config:
    """The saved config with what may change as it is wanted.

    Raises:
        InputError: naming a key that would make it another run.
    """
    wanted = replace(with_absolute_paths(wanted), resume=None)
    for key, before, now in _differences(saved, wanted):
        if any(key == free or key.startswith(f"{free}.") for free in _FREE):
            continue
        grown = key in _MAY_GROW and isinstance(before, int) and isinstance(now, int) and now > before
        if not grown:
            may = "may only be raised" if key in _MAY_GROW else _ANOTHER
            raise InputError(f"{key}={_plain(now)}: the run has {key}={_plain(before)}, which {may}")
    return wanted


def extends(saved: Config, wanted: Config) -> bool:
    """Whether there is more to do than the run was meant to."""
    return any(key in _MAY_GROW for key, _, _ in _differences(saved, wanted))


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _differences(one: Any, other: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for item in fields(one):
        before, now, key = getattr(one, item.name), getattr(other, item.name), prefix + item.name
        if is_dataclass(before):
            yield from _differences(before, now, f"{key}.")
        elif isinstance(before, dict) and isinstance(now, dict):
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    yield f"{key}.{name}", before.get(name), now.get(name)
        elif before != now:
            yield key, before, now
