"""What Hydra calls before it makes or touches an output directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import to_config, without_hydra
from afqmc.config.messages import explain
from afqmc.config.resume import AUTO
from afqmc.errors import InputError, Refused
from afqmc.redaction import redacted_argument
from afqmc.rundir import RunDir


class RunDirectoryGuard(Callback):
    """Refuses what can be refused before Hydra makes or touches the output directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and the directory.

        Raises:
            Refused: since Hydra turns any Exception of a callback into a warning.
        """
        try:
            checked = to_config(without_hydra(config))
            if checked.resume is None:
                RunDir(Path(config.hydra.run.dir)).refuse_occupied()
            elif checked.resume == AUTO:
                _refuse_moving("hydra.run.dir", config.hydra.run)
            _make("hydra.run.dir", config.hydra.run.dir)
        except InputError as error:
            raise Refused(str(error)) from error
        except OmegaConfBaseException as error:
            raise Refused(explain(error)) from error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Hydra prints the overrides of a job that failed: without secrets."""
        job_return.overrides = [redacted_argument(override) for override in job_return.overrides or ()]

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the directory of the sweep.

        Raises:
            Refused: when it cannot be made.
        """
        try:
            if config.resume == AUTO:
                _refuse_moving("hydra.sweep.dir", config.hydra.sweep)
            _make("hydra.sweep.dir", config.hydra.sweep.dir)
        except InputError as error:
            raise Refused(str(error)) from error


def _refuse_moving(key: str, node: DictConfig) -> None:
    raw = str(OmegaConf.to_container(node, resolve=False)["dir"])  # type: ignore[index, call-overload]
    if "${now:" in raw:
        raise InputError(f"resume=auto: needs a directory that is the same each time: {key}=DIR")


def _make(key: str, directory: str) -> None:
    try:
        os.path.abspath(directory).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{key}={directory}: is no UTF-8, and a tokenizer cannot be saved there") from error
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if Path(directory).is_file() else f"cannot be made ({error.strerror})"
        raise InputError(f"{key}={directory}: {reason}; a directory that can be written is needed") from error
