"""One run from outside: its directory is told that it began and how it ended, whatever happens in between."""

from __future__ import annotations

import logging
import traceback
from shlex import quote as quoted
from typing import TYPE_CHECKING, Any

from afqmc import config as schema
from afqmc.cli import FAILED, INTERRUPTED, TERMINATED
from afqmc.config import Config
from afqmc.config.resume import is_longer
from afqmc.distributed.rendezvous import board
from afqmc.run_dir import RunDir, Status
from afqmc.runner.summary_table import show
from afqmc.tracking.run_names import PRUNED
from afqmc.utils.console import UNSEEN
from afqmc.utils.errors import InputError, Pruned
from afqmc.utils.signals import Terminated, forget, terminable, undisturbed

if TYPE_CHECKING:
    from afqmc.runner.experiment import Job
    from afqmc.sweeps.pruning import Judge

log = logging.getLogger(__name__)


def execute(config: Config, run_dir: RunDir, resume: bool = False, judge: Judge | None = None) -> dict[str, Any]:
    """Train, keep the best on dev, evaluate it, predict; returns what summary.json holds.

    However it ends, status.json says so before the tracker is told: a tracker takes its time.

    Args:
        config: Of the run.
        run_dir: Where; nobody else may be at it.
        resume: Go on with the run that is there, if one is; its config is then the given one.
        judge: Of a search: hears of each evaluation, and may end the run.

    Raises:
        InputError: for what a person can mend.
    """
    with run_dir.locked(), terminable():
        resumed = resume and run_dir.is_occupied()
        if resumed:
            run_dir.refuse_links()
        else:
            run_dir.refuse_occupied()
        if resumed and run_dir.summary.exists() and not is_longer(schema.load(run_dir.path), config):
            summary = run_dir.read_summary()
            show(summary)
            log.info("complete already: %s", run_dir.path)
            if run_dir.read_status().get("status") != Status.completed.value:
                run_dir.write_status(Status.completed, step=summary.get("steps"))
            return summary
        return _execute(config, run_dir, resumed, judge)


def _execute(config: Config, run_dir: RunDir, resumed: bool, judge: Judge | None) -> dict[str, Any]:
    job: Job | None = None
    place = board()
    try:
        if not resumed:
            schema.save(schema.anchored(config), run_dir.config)
            run_dir.write_status(Status.running)
        told = {"config": schema.as_text(schema.anchored(config)), "run_dir": str(run_dir.path.absolute())}
        place.announce(told | {"resumed": resumed})
        from afqmc.runner.experiment import Job  # torch and its kin take seconds, in which a run can be interrupted too

        job = Job(config, run_dir, resumed, judge)
        summary = job.run()
        with undisturbed():
            run_dir.write_status(Status.completed, step=job.step)
            run_dir.write_summary(summary)
    except Pruned as pruned:
        assert job is not None
        with undisturbed():
            run_dir.write_status(Status.pruned, step=job.step, why=str(pruned))
        log.info("%s; run directory: %s", pruned, run_dir.path)
        job.tracker.tag(PRUNED)
        job.tracker.finish(exit_code=0)
        return {"status": Status.pruned.value}
    except BaseException as raised:
        error = raised
        try:
            with undisturbed():
                place.end(raised)
                error = place.explained(raised)
                record_end(error, run_dir, job, resumed)
                if error is not raised and not isinstance(error, KeyboardInterrupt):
                    forget()
        except OSError as another:  # a full disk, a directory that is gone
            log.error("status.json could not be written: %s", another)
        finally:
            if job is not None:
                job.tracker.finish(exit_code_of(error))
        if error is not raised:
            raise error from raised
        raise
    place.end(None)
    show(summary)
    log.info("run directory: %s", run_dir.path)
    job.tracker.finish(exit_code=0)
    return summary


def record_end(error: BaseException, run_dir: RunDir, job: Job | None, resumed: bool) -> None:
    """Status and log of a run that ended before its time; one that is complete stays so.

    Args:
        error: What ended it.
        run_dir: Where.
        job: As far as it came.
        resumed: Whether it went on with a run; its status stays what it was until that is put back.
    """
    begun = job is not None and job.training is not None
    if resumed and not begun:
        before = run_dir.read_status()
        if before.get("status") == Status.running.value:  # it was killed
            run_dir.write_status(Status.interrupted, step=before.get("step", 0))
        log.error("not gone on with: %s", error or type(error).__name__, extra=UNSEEN)
        return
    if run_dir.summary.exists():
        return
    step = 0 if job is None else job.step
    if isinstance(error, KeyboardInterrupt):
        run_dir.write_status(Status.interrupted, step=step)
        why = f"{'terminated' if isinstance(error, Terminated) else 'interrupted'} at step {step}"
    elif isinstance(error, InputError) and not begun:
        run_dir.write_status(Status.refused, step=step, **describe_error(error))
        log.error("refused: %s", error, extra=UNSEEN)
        return
    else:
        run_dir.write_status(Status.failed, step=step, **describe_error(error))
        why = f"failed at step {step}: {type(error).__name__}: {error}"
    log.error(why, extra=UNSEEN)  # the command itself prints what was raised
    log.info("run directory: %s", run_dir.path)
    if begun and isinstance(error, KeyboardInterrupt):  # a failure would most likely come again
        log.info("to go on: python -m afqmc.run %s", quoted(f"resume={run_dir.path}"))


def describe_error(error: BaseException) -> dict[str, str]:
    """For status.json: what a person did wrong in a sentence, anything else with its traceback."""
    if isinstance(error, InputError):
        return {"error": str(error)}
    return {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))}


def exit_code_of(error: BaseException) -> int:
    """What the tracker is told."""
    if isinstance(error, Terminated):
        return TERMINATED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
