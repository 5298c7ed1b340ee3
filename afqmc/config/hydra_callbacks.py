"""The Hydra callback that checks a config and its output directory before Hydra creates or changes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import Config, check_source, drop_hydra_node, load, to_config
from afqmc.config.error_messages import format_hydra_error
from afqmc.config.resume import AUTO, merge_for_resume
from afqmc.distributed.rank import current_rank
from afqmc.run_dir import RunDir
from afqmc.sweeps.plan import Sweep
from afqmc.utils.errors import InputError, UnswallowedInputError
from afqmc.utils.files import is_utf8
from afqmc.utils.redaction import redacted_argument


class RunDirCallback(Callback):
    """Checks the config and the output directory before Hydra creates or changes it.

    Hydra turns any Exception of a callback into a warning, so invalid input is raised as UnswallowedInputError.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and the run directory.

        Raises:
            UnswallowedInputError: if one of them is invalid.
        """
        try:
            checked = to_config(drop_hydra_node(config))
            check_source(checked.dataset, config.hydra.overrides.task)
            if checked.resume == AUTO:
                _require_fixed_directory("hydra.run.dir", config.hydra.run)
            _create_directory("hydra.run.dir", config.hydra.run.dir)
            RunDir(Path(config.hydra.run.dir)).reject_escaping_links(everywhere=False)
            if checked.resume is None:
                RunDir(Path(config.hydra.run.dir)).ensure_empty()
            elif checked.resume == AUTO:
                self._check_existing_run(config, checked)
        except InputError as error:
            raise UnswallowedInputError(str(error)) from error
        except OmegaConfBaseException as error:
            raise UnswallowedInputError(format_hydra_error(error)) from error

    def _check_existing_run(self, config: DictConfig, checked: Config) -> None:
        """Check the config against a run in the directory, and keep Hydra's record of how that run was started."""
        run_dir = RunDir(Path(config.hydra.run.dir))
        if run_dir.holds_run():
            merge_for_resume(load(run_dir.path), checked)
            with read_write(config), open_dict(config):
                config.hydra.output_subdir = None

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Redact the overrides of a job, which Hydra prints if it failed."""
        job_return.overrides = [redacted_argument(override) for override in job_return.overrides or ()]

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Create the directory of the sweep, and check an existing one.

        Raises:
            UnswallowedInputError: if it cannot be created or has links that lead out of it, or with several processes.
        """
        try:
            if not current_rank().is_single:
                raise InputError(
                    "-m: not with several processes; start each run by itself: "
                    "for lr in 1e-5 2e-5; do torchrun ... -m afqmc.run lr=$lr; done"
                )
            if config.resume == AUTO:
                _require_fixed_directory("sweep.name", config.sweep, "name")
                _require_fixed_directory("hydra.sweep.dir", config.hydra.sweep)
            _create_directory("hydra.sweep.dir", config.hydra.sweep.dir)
            Sweep(Path(config.hydra.sweep.dir)).reject_escaping_links()
        except InputError as error:
            raise UnswallowedInputError(str(error)) from error


def _require_fixed_directory(key: str, node: DictConfig, name: str = "dir") -> None:
    raw = str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[index, call-overload]
    if "${now:" in raw:
        raise InputError(f"resume=auto: needs a fixed directory: {key}={name.upper()}")


def _create_directory(key: str, directory: str) -> None:
    if not is_utf8(os.getcwd()):  # a run saves absolute paths
        raise InputError(f"{os.getcwd()}: the name of this directory is not valid UTF-8; start the run in another")
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if os.path.isfile(directory) else f"cannot be created ({error.strerror})"
        raise InputError(f"{key}={directory}: {reason}; a writable directory is needed") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"{key}={directory}: not writable")
