"""``python -m afqmc.run key=value ...``: compose a config, run it, say in one message what went wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.board import board
from afqmc.cli import DONE, errors_handed_on, exit_code, full_errors, leave
from afqmc.errors import InputError, Refused
from afqmc.groups import config_dirs, help_text, is_help_asked
from afqmc.ranks import adopt_slurm, here

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from afqmc.config import Config
    from afqmc.rundir import RunDir
    from afqmc.search.judge import Judge
    from afqmc.sweep.plan import Sweep

# Hydra takes a while to import. It is imported inside main, where Ctrl-C already ends in one word.


def run(node: DictConfig, resumed: Config | None) -> dict[str, Any]:
    """One job: what Hydra calls with a composed config.

    Args:
        node: The composed config.
        resumed: The saved config of the run to resume; used instead of the composed one.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from afqmc.config import load, to_config
    from afqmc.config.resume import AUTO, going_on
    from afqmc.execution import execute
    from afqmc.process import settle
    from afqmc.rundir import RunDir
    from afqmc.sweep.plan import Sweep
    from afqmc.tracker.naming import in_its_sweep

    settle(jobs_at_once() * here().local_size)
    config, hydra = to_config(node), HydraConfig.get()
    run_dir, sweep = RunDir(Path(hydra.runtime.output_dir)), Sweep(Path(hydra.sweep.dir))
    name = sweep.path.name if hydra.mode is RunMode.MULTIRUN else None
    config.tracker = in_its_sweep(config.tracker, name, list(hydra.overrides.task))
    if resumed is not None:
        return execute(resumed, run_dir, resume=True)
    asked, config.resume = config.resume, None  # it is no part of what a run is
    if hydra.mode is RunMode.MULTIRUN and sweep.read():
        asked = AUTO  # the sweep knows what is to be started, and what to be gone on with
    if asked == AUTO and run_dir.is_occupied():
        config = going_on(load(run_dir.path), config)
    return execute(config, run_dir, resume=asked == AUTO, judge=judge_of(sweep, run_dir, config))


def judge_of(sweep: Sweep, run_dir: RunDir, config: Config) -> Judge | None:
    """Who may end this run early: a search with a pruner, of which it is a trial."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from afqmc.search.judge import Judge
    from afqmc.search.study import Settings

    numbers = {job.directory: job.number for job in sweep.read()}
    number = numbers.get(run_dir.path.name)
    sweeper: Any = OmegaConf.to_container(HydraConfig.get().sweeper, resolve=True)
    if number is None or not sweeper["_target_"].endswith(".search.Search"):
        return None
    settings = Settings(**{key: value for key, value in sweeper.items() if key not in ("_target_", "params")})
    if not settings.prunes_within_runs(list(numbers.values()).count(number)):
        return None
    return Judge(settings, sweep.path, number, (settings.objectives or [config.trainer.monitor])[0])


class Task:
    """What Hydra calls with the config of a job: in this process, or, of a sweep, in one of the job's own."""

    def __init__(self, resumed: Config | None) -> None:
        self.resumed = resumed
        self.raised: list[BaseException] = []

    def __call__(self, node: DictConfig) -> dict[str, Any] | None:
        """Run it; what a single run raises is kept, since Hydra would print about it."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return run(node, self.resumed)
        except BaseException as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            self.raised.append(error)
            return None


def jobs_at_once() -> int:
    """How many jobs of this sweep run side by side: what launchers that do so (joblib) call ``n_jobs``."""
    from hydra.core.hydra_config import HydraConfig

    from afqmc.process import usable_cores

    asked = (HydraConfig.get().launcher or {}).get("n_jobs") or 1
    return usable_cores() if asked < 0 else int(asked)


def main() -> int:
    """Run the command line, or, beside a rank 0 that does so, what that tells; returns the exit code."""
    adopt_slurm()
    place = board()
    if not place.rank.is_main:
        from afqmc.following import follow

        return follow()
    try:
        code = lead()
    except Exception:
        place.dismiss()
        raise
    place.dismiss()
    return code


def lead() -> int:
    """Run the command line; returns the exit code."""
    if is_help_asked(sys.argv):
        print(help_text(sys.argv))
        return DONE
    from afqmc.config import completion, register
    from afqmc.config.quoting import quoted_all
    from afqmc.config.resume import taken_from
    from afqmc.config.yaml_files import check_files

    if completion.is_asked(sys.argv):
        if told := completion.script(sys.argv):
            print(told)
            return DONE
        os.environ["COMP_LINE"] = completion.line_for_hydra(os.environ)
    resume, sys.argv[1:] = taken_from(sys.argv[1:])
    sys.argv[1:] = quoted_all(sys.argv[1:])
    check_files(sys.argv[1:], config_dirs(sys.argv[1:]))
    register()
    hand_to_hydra(resume.config() if resume else None)  # before Hydra starts: it composes one config at a time
    return DONE


def hand_to_hydra(resumed: Config | None) -> None:
    """Let Hydra compose and run the job, or the jobs; what goes wrong there is raised instead of printed."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from afqmc.config import conf_dir
    from afqmc.config.messages import explain

    task = Task(resumed)
    try:
        with errors_handed_on():
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(task)()
        for error in task.raised:
            raise error
    except (Refused, HydraException, OmegaConfBaseException) as error:
        if full_errors():
            raise
        raise InputError(explain(error)) from error


if __name__ == "__main__":
    leave(exit_code(main))
