"""``python -m afqmc.run key=value ...``: compose a config, run it, say in one message what went wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from afqmc.cli import DONE, exit_code, full_errors
from afqmc.config import completion, conf_dir, refuse_null_groups, register, to_config
from afqmc.config.messages import explain
from afqmc.config.quoting import quoted_all
from afqmc.errors import InputError, Refused
from afqmc.process import settle, usable_cores
from afqmc.rundir import RunDir


def run(node: DictConfig) -> dict[str, Any]:
    """One job: what Hydra calls with a composed config."""
    config = to_config(node)
    settle(jobs_at_once())
    from afqmc.job import execute  # torch and its kin: --help and --cfg do without them

    return execute(config, RunDir(Path(HydraConfig.get().runtime.output_dir)))


def jobs_at_once() -> int:
    """How many jobs of this sweep run side by side: what launchers that do so (joblib) call ``n_jobs``."""
    asked = (HydraConfig.get().launcher or {}).get("n_jobs") or 1
    return usable_cores() if asked < 0 else int(asked)


def main() -> int:
    """Run the command line; returns the exit code."""
    raised: list[BaseException] = []

    def job(node: DictConfig) -> dict[str, Any] | None:
        try:
            return run(node)
        except BaseException as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            raised.append(error)  # Hydra would print about it
            return None

    full = full_errors()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on instead of printing them
    if completion.is_asked(sys.argv):
        if told := completion.script(sys.argv):
            print(told)
            return DONE
        os.environ["COMP_LINE"] = completion.line_for_hydra(os.environ)
    sys.argv[1:] = quoted_all(sys.argv[1:])
    refuse_null_groups(sys.argv[1:])
    register()
    try:
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(job)()
        for error in raised:
            raise error
    except (Refused, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        raise InputError(explain(error)) from error
    finally:
        os.environ["HYDRA_FULL_ERROR"] = str(int(full))
    return DONE


if __name__ == "__main__":
    sys.exit(exit_code(main))
