"""``python -m afqmc.run key=value ...``: compose a config and run it; report an error in one message."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, exit_code, leave
from afqmc.config.help import config_dirs, help_text, is_help_asked
from afqmc.distributed.rank import adopt_slurm, here
from afqmc.distributed.rendezvous import board

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from afqmc.config import Config

# Hydra takes a while to import. It is imported inside main, which handles Ctrl-C.


def main() -> int:
    """Run the command line; in ranks other than 0, run what rank 0 says. Return the exit code."""
    adopt_slurm()
    coordinator = board()
    if not coordinator.rank.is_main:
        from afqmc.runner.worker import run_worker

        return run_worker()
    try:
        if is_help_asked(sys.argv):
            print(help_text(sys.argv))
        else:
            compose_and_run(sys.argv)
    finally:
        coordinator.dismiss()
    return DONE


def compose_and_run(argv: list[str]) -> None:
    """Let Hydra compose the config, or those of a multirun, and call ``run`` for each."""
    from afqmc.config import register
    from afqmc.config.help import shell_completion
    from afqmc.config.hydra_app import run_hydra
    from afqmc.config.overrides import quoted_all
    from afqmc.config.resume import taken_from
    from afqmc.config.yaml_checks import check_files

    if script := shell_completion(argv):
        print(script)
        return
    resume, argv[1:] = taken_from(argv[1:])
    argv[1:] = quoted_all(argv[1:])
    check_files(argv[1:], config_dirs(argv[1:]))
    register()
    saved = None if resume is None else resume.config()  # before Hydra starts: it composes one config at a time
    run_hydra(partial(run, saved=saved))


def run(node: DictConfig, saved: Config | None = None) -> dict[str, Any]:
    """Run one job.

    Args:
        node: The config that Hydra composed.
        saved: The config of the run to resume, used instead.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from afqmc.config import load, to_config
    from afqmc.config.hydra_app import launcher_n_jobs, sweeper_settings
    from afqmc.config.resume import AUTO, going_on
    from afqmc.run_dir import RunDir
    from afqmc.runner.lifecycle import RunLifecycle
    from afqmc.sweeps.plan import Sweep
    from afqmc.sweeps.pruning import build_pruner
    from afqmc.tracking.run_names import in_its_sweep
    from afqmc.utils.process import settle

    settle(launcher_n_jobs() * here().local_size)
    config, hydra = to_config(node), HydraConfig.get()
    run_dir, sweep = RunDir(Path(hydra.runtime.output_dir)), Sweep(Path(hydra.sweep.dir))
    is_multirun = hydra.mode is RunMode.MULTIRUN
    config.tracker = in_its_sweep(config.tracker, sweep.path.name if is_multirun else None, list(hydra.overrides.task))
    resume, config.resume = config.resume, None
    if is_multirun and sweep.read():
        resume = AUTO  # the sweep knows which jobs to start, and which to resume
    if saved is not None:
        config, resume = saved, AUTO
    elif resume == AUTO and run_dir.is_occupied():
        config = going_on(load(run_dir.path), config)
    pruner = None if saved else build_pruner(sweeper_settings(), sweep, run_dir.path.name, config.trainer.monitor)
    with RunLifecycle(config, run_dir, resume == AUTO) as lifecycle:
        from afqmc.runner.experiment import run_experiment  # importing torch takes seconds: signals are handled here

        run_experiment(config, run_dir, pruner=pruner, lifecycle=nullcontext(lifecycle))
    return lifecycle.summary


if __name__ == "__main__":
    leave(exit_code(main))
