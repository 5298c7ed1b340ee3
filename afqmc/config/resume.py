"""Resuming a run: its saved config is used, and only keys that cannot change the result may be overridden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config.compose import compose, load, to_config, with_absolute_paths
from afqmc.config.error_messages import format_hydra_error
from afqmc.config.overrides import literal, quote_overrides
from afqmc.config.schema import Config
from afqmc.run_dir import RunDir
from afqmc.utils.command_help import options
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user
from afqmc.utils.targets import untrusted_targets

AUTO = "auto"
_KEY = "resume="
CHANGEABLE = (  # cannot change the result of a run that completes without them
    "tracker", "sweep", "dataset.path", "dataset.cache_dir",
    "checkpoint", "distributed", "trainer.auto_microbatch", "trainer.gradient_checkpointing", "trainer.eval_batch_size",
    "trainer.on_nonfinite", "trainer.max_nonfinite", "trainer.rollback_lr_factor",
)  # fmt: skip
_FIXED = "cannot be changed on resume; for another run leave resume= out and name a new directory"
EXTENDABLE = ("epochs", "trainer.max_steps")
_PRINT_FLAGS = ("--cfg", "-c", "--info", "-i")


@dataclass(frozen=True)
class Resume:
    """The run directory of ``resume=RUN_DIR`` and the other overrides of the command line."""

    directory: Path
    overrides: list[str]

    def config(self) -> Config:
        """Return the run's saved config with the overrides.

        Raises:
            InputError: naming the first override that is not allowed on resume.
        """
        saved = load(self.directory)
        if "trust=true" not in self.overrides:
            _reject_untrusted_targets(saved, self.directory)
        rest = [override for override in self.overrides if not override.startswith("trust=")]
        return merge_for_resume(saved, _apply_overrides(saved, rest))


def parse_resume(arguments: list[str]) -> tuple[Resume | None, list[str]]:
    """Return the ``Resume`` of ``resume=RUN_DIR``, or None, and the arguments for Hydra.

    Raises:
        InputError: if the directory has no run, or another argument contradicts resuming one run.
    """
    values = [argument.removeprefix(_KEY) for argument in arguments if argument.startswith(_KEY)]
    if not values or values[-1] in (AUTO, "null", ""):
        return None, arguments
    directory = expand_user(values[-1].strip("'\""))
    rest = [argument for argument in arguments if not argument.startswith(_KEY)]
    if {"-m", "--multirun"} & set(rest):
        raise InputError(f"resume={directory}: resumes one run; for a sweep: -m resume=auto hydra.sweep.dir=DIR")
    if flags := [argument for argument in rest if argument in _PRINT_FLAGS]:
        raise InputError(f"{flags[0]}: not with resume=; the run's config is {RunDir(directory).config}")
    if outputs := [argument for argument in rest if argument.startswith("hydra.run.dir=")]:
        raise InputError(f"{outputs[0]}: not with resume=RUN_DIR, which writes to the directory of the run")
    load(directory)
    RunDir(directory).reject_escaping_links()  # before anything is logged there
    path = literal(str(directory.absolute()))
    for_hydra = [argument for argument in rest if argument.startswith(("-", "hydra."))]
    overrides = [argument for argument in rest if argument not in for_hydra]
    for_hydra += [f"hydra.run.dir={path}", f"resume={path}", "hydra.output_subdir=null"]
    return Resume(directory, overrides), for_hydra


def _reject_untrusted_targets(config: Config, directory: Path) -> None:
    """Refuse targets outside of well-known libraries: the directory may be untrusted, and targets are imported."""
    for key, target in untrusted_targets(asdict(config)):
        raise InputError(f"{directory}: {key}={target} is untrusted code; trust=true runs it")


def _apply_overrides(saved: Config, overrides: list[str]) -> Config:
    """Return the saved config with overrides of keys; the only group that can be overridden is ``tracker``."""
    try:
        node = OmegaConf.structured(saved)
        for override in OverridesParser.create().parse_overrides(quote_overrides(overrides)):
            key, text = override.key_or_group, str(override.input_line)
            if override.is_add() or override.is_delete() or override.is_force_add() or override.is_sweep_override():
                raise InputError(f"{text}: not with resume=; write key=value")
            if key == "tracker":
                node.tracker = compose([text]).tracker
            elif options(key):
                raise InputError(f"{text}: resume= keeps the {key} of the run; it cannot be changed")
            else:
                OmegaConf.update(node, key, override.value(), merge=True, force_add=False)
        return to_config(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(format_hydra_error(error)) from error


def merge_for_resume(saved: Config, requested: Config) -> Config:
    """Return the requested config with absolute paths, after checking that a run of the saved one may resume with it.

    Raises:
        InputError: naming a key that may not change.
    """
    requested = replace(with_absolute_paths(requested), resume=None)
    for key, old, new in _differences(saved, requested):
        if any(key == free or key.startswith(f"{free}.") for free in CHANGEABLE):
            continue
        is_raised = key in EXTENDABLE and isinstance(old, int) and isinstance(new, int) and new > old
        if not is_raised:
            rule = "may only be raised" if key in EXTENDABLE else _FIXED
            raise InputError(f"{key}={_plain(new)}: the run has {key}={_plain(old)}, which {rule}")
    return requested


def extends(saved: Config, requested: Config) -> bool:
    """Return whether the requested config trains for longer than the saved one."""
    return any(key in EXTENDABLE for key, _, _ in _differences(saved, requested))


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _differences(saved: Any, requested: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, saved value, requested value) of each key that differs."""
    for item in fields(saved):
        old, new, key = getattr(saved, item.name), getattr(requested, item.name), prefix + item.name
        if is_dataclass(old):
            yield from _differences(old, new, f"{key}.")
        elif isinstance(old, dict) and isinstance(new, dict):
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    yield f"{key}.{name}", old.get(name), new.get(name)
        elif old != new:
            yield key, old, new
