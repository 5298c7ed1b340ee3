"""``python -m afqmc.run key=value ...``: compose a config and run it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, exit_now, run_command
from afqmc.distributed.rank import current_rank, export_torchrun_env
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.run_dir import RunDir
from afqmc.utils.callable_module import make_callable
from afqmc.utils.command_help import CONFIG_NAMES, RUN, config_dirs, help_text, is_help_asked
from afqmc.utils.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from afqmc.config import Config
    from afqmc.training.callbacks.base import Callback

# Hydra takes a while to import, so it is imported within main, where Ctrl-C is handled.


def main() -> int:
    """Run the command line."""
    return run_main(RUN)


def run_main(command: str) -> int:
    """Run the command line, or in ranks other than 0 the job received from rank 0; return the exit code.

    Args:
        command: ``run`` or ``pretrain``, which differ in their default config.
    """
    export_torchrun_env()
    coordinator = get_coordinator()
    if not coordinator.rank.is_main:
        from afqmc.runner.worker import run_worker

        return run_worker()
    try:
        if is_help_asked(sys.argv):
            print(help_text(sys.argv, command))
        else:
            compose_and_run(sys.argv, command=command)
    finally:
        coordinator.dismiss_workers()
    return DONE


def compose_and_run(argv: list[str], on_end: Callable[[RunDir], None] | None = None, command: str = RUN) -> None:
    """Let Hydra compose the config, or each config of a multirun, and call ``run`` with it.

    Args:
        argv: The command line; Hydra reads ``sys.argv``, which must be the same list.
        on_end: Called with the directory of the run.
        command: ``run`` or ``pretrain``.
    """
    from afqmc.config import register
    from afqmc.config.hydra_app import run_hydra
    from afqmc.config.overrides import check_command, quote_overrides
    from afqmc.config.resume import parse_resume
    from afqmc.config.yaml_checks import check_files
    from afqmc.utils.command_help import shell_completion

    if script := shell_completion(argv):
        print(script)
        return
    resume, argv[1:] = parse_resume(argv[1:])
    argv[1:] = quote_overrides(argv[1:])
    check_command(argv[1:], command)
    check_files(argv[1:], config_dirs(argv[1:]))
    register()
    saved = None if resume is None else resume.config()  # before Hydra starts, which composes one config at a time
    run_hydra(partial(run, saved=saved, on_end=on_end), CONFIG_NAMES[command])


def run(
    node: DictConfig,
    saved: Config | None = None,
    on_end: Callable[[RunDir], None] | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Run one job.

    Args:
        node: The config that Hydra composed.
        saved: With ``resume=RUN_DIR``, the config of that run, which is used instead.
        on_end: Called with the directory of the run.
        callbacks: Callbacks in addition to those of the config.

    Returns:
        The summary of the run.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from afqmc.config import load, to_config
    from afqmc.config.hydra_app import launcher_n_jobs, sweeper_settings
    from afqmc.config.resume import AUTO, merge_for_resume
    from afqmc.runner.lifecycle import RunLifecycle
    from afqmc.sweeps.plan import Sweep
    from afqmc.sweeps.pruning import build_pruner
    from afqmc.tracking.run_names import with_sweep_metadata
    from afqmc.utils.process import configure_threads, importing_libraries

    configure_threads(launcher_n_jobs() * current_rank().local_world_size)
    config, hydra = to_config(node), HydraConfig.get()
    run_dir, sweep = RunDir(Path(hydra.runtime.output_dir)), Sweep(Path(hydra.sweep.dir))
    is_multirun = hydra.mode is RunMode.MULTIRUN
    config.tracker = with_sweep_metadata(
        config.tracker, sweep.path.name if is_multirun else None, list(hydra.overrides.task)
    )
    resume, config.resume = config.resume, None
    if is_multirun and sweep.read():
        resume = AUTO  # jobs of an existing sweep are resumed if they have been started before
    if saved is not None:
        config, resume = saved, AUTO
    elif resume == AUTO and run_dir.holds_run():
        config = merge_for_resume(load(run_dir.path), config)
    pruner = None if saved else build_pruner(sweeper_settings(), sweep, run_dir.path.name, config.trainer.monitor)
    with RunLifecycle(config, run_dir, resume == AUTO) as lifecycle:
        # importing torch takes seconds, so it is done where signals are handled
        with importing_libraries():
            from afqmc.runner.experiment import run_experiment

        run_experiment(config, run_dir, pruner=pruner, callbacks=callbacks, lifecycle=nullcontext(lifecycle))
    if on_end is not None:
        on_end(run_dir)
    return lifecycle.summary


def run_overrides(overrides: Sequence[str]) -> RunDir:
    """Train as ``python -m afqmc.run`` does, in this process, and return the run directory.

    Args:
        overrides: Such as ``["experiment=quickstart", "lr=1e-4"]``. ``resume=RUN_DIR`` resumes a run. Flags and sweeps
            (``-m``) are not allowed.

    Raises:
        InputError: for invalid config or data.
        KeyboardInterrupt: after a signal, once a checkpoint is saved.
    """
    if flags := [override for override in overrides if override.startswith("-")]:
        raise InputError(f"{flags[0]}: only overrides key=value are allowed here; use the command line")
    run_dirs: list[RunDir] = []
    argv, sys.argv = sys.argv, ["afqmc.run", *overrides]  # Hydra reads it, and environment.json records it
    try:
        compose_and_run(sys.argv, run_dirs.append)
    finally:
        sys.argv = argv
    return run_dirs[0]


if __name__ == "__main__":
    exit_now(run_command(main))
make_callable(__name__, run_overrides)
