"""Runs a function under Hydra, and turns Hydra's errors into messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.cli import hydra_raises, wants_traceback
from afqmc.config.error_messages import format_hydra_error
from afqmc.utils.command_help import conf_dir
from afqmc.utils.errors import InputError, UnswallowedInputError
from afqmc.utils.process import usable_cores

_RunFunction = Callable[[DictConfig], dict[str, Any]]


class HydraTask:
    """Hydra's task function.

    Args:
        run: Runs one composed config.
    """

    def __init__(self, run: _RunFunction) -> None:
        self.run = run
        self.raised: list[BaseException] = []

    def __call__(self, node: DictConfig) -> dict[str, Any] | None:
        """Run a job. In a single run store its error in ``raised``, since Hydra would print and exit."""
        try:
            return self.run(node)
        except BaseException as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            self.raised.append(error)
            return None


def run_hydra(run: _RunFunction, config_name: str) -> None:
    """Compose the config of the command line, and run it, or the jobs of a multirun.

    Args:
        run: Runs one composed config.
        config_name: The YAML file in ``conf/`` that has the defaults.

    Raises:
        InputError: if a config cannot be composed.
        BaseException: any error of ``run``.
    """
    task = HydraTask(run)
    try:
        with hydra_raises():
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(task)()
        for error in task.raised:
            raise error
    except (UnswallowedInputError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback():
            raise
        raise InputError(format_hydra_error(error)) from error


def launcher_n_jobs() -> int:
    """Return the number of parallel jobs in this multirun: the launcher's ``n_jobs``."""
    requested = (HydraConfig.get().launcher or {}).get("n_jobs") or 1
    return usable_cores() if requested < 0 else int(requested)


def sweeper_settings() -> dict[str, Any]:
    """Return the ``hydra/sweeper`` group as a plain dict."""
    settings = OmegaConf.to_container(HydraConfig.get().sweeper, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}
