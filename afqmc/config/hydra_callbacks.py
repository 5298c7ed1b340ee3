"""What Hydra calls before it makes or touches an output directory."""

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
    """Refuses what can be refused before Hydra makes or touches the output directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and the directory.

        Raises:
            Refused: since Hydra turns any Exception of a callback into a warning.
        """
        try:
            checked = to_config(drop_hydra_node(config))
            check_source(checked.dataset, config.hydra.overrides.task)
            if checked.resume == AUTO:
                _refuse_moving("hydra.run.dir", config.hydra.run)
            _make("hydra.run.dir", config.hydra.run.dir)
            RunDir(Path(config.hydra.run.dir)).reject_escaping_links(everywhere=False)
            if checked.resume is None:
                RunDir(Path(config.hydra.run.dir)).ensure_empty()
            elif checked.resume == AUTO:
                self._leave_hydras_files(config, checked)
        except InputError as error:
            raise UnswallowedInputError(str(error)) from error
        except OmegaConfBaseException as error:
            raise UnswallowedInputError(format_hydra_error(error)) from error

    def _leave_hydras_files(self, config: DictConfig, checked: Config) -> None:
        """Where a run is, hold the command to it, and let Hydra's record of how it began stay as it is."""
        run_dir = RunDir(Path(config.hydra.run.dir))
        if run_dir.holds_run():
            merge_for_resume(load(run_dir.path), checked)
            with read_write(config), open_dict(config):
                config.hydra.output_subdir = None

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Hydra prints the overrides of a job that failed: without secrets."""
        job_return.overrides = [redacted_argument(override) for override in job_return.overrides or ()]

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the directory of the sweep, and check one that exists.

        Raises:
            Refused: when it cannot be made or holds links that lead out of it, or the run has several processes.
        """
        try:
            if not current_rank().is_single:
                raise InputError(
                    "-m: not with several processes, which would meet only once; start each run by itself: "
                    "for lr in 1e-5 2e-5; do torchrun ... -m afqmc.run lr=$lr; done"
                )
            if config.resume == AUTO:
                _refuse_moving("sweep.name", config.sweep, "name")
                _refuse_moving("hydra.sweep.dir", config.hydra.sweep)
            _make("hydra.sweep.dir", config.hydra.sweep.dir)
            Sweep(Path(config.hydra.sweep.dir)).reject_escaping_links()
        except InputError as error:
            raise UnswallowedInputError(str(error)) from error


def _refuse_moving(key: str, node: DictConfig, name: str = "dir") -> None:
    raw = str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[index, call-overload]
    if "${now:" in raw:
        raise InputError(f"resume=auto: needs a directory that is the same each time: {key}={name.upper()}")


def _make(key: str, directory: str) -> None:
    if not is_utf8(os.getcwd()):  # it is in the paths that a run saves
        raise InputError(f"{os.getcwd()}: the name of this directory is no UTF-8; start the run in another")
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if os.path.isfile(directory) else f"cannot be made ({error.strerror})"
        raise InputError(f"{key}={directory}: {reason}; a directory that can be written is needed") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"{key}={directory}: may not be written; a directory that can be written is needed")
