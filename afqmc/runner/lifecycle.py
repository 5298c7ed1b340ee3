"""The lifecycle of a run: lock the directory, handle signals, write status.json, end in an orderly way."""

from __future__ import annotations

import logging
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from shlex import quote
from types import TracebackType
from typing import Any, Protocol

from afqmc import config as schema
from afqmc.cli import outcome_of
from afqmc.config import Config
from afqmc.config.resume import extends
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.run_dir import RunDir, Status
from afqmc.runner.summary_table import print_summary
from afqmc.tracking.base import NullTracker, Tracker
from afqmc.tracking.run_names import PRUNED
from afqmc.utils.console import LOG_FILE_ONLY
from afqmc.utils.errors import InputError, TrialPruned
from afqmc.utils.signals import Terminated, clear_deferred, defer_signals, handle_termination
from afqmc.utils.targets import untrusted_targets

log = logging.getLogger(__name__)


class Progress(Protocol):
    """The part of a trainer that the lifecycle needs."""

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        ...


class RunLifecycle:
    """Context of one run in rank 0. However the run ends, status.json says so.

    Entering locks the directory, installs the signal handlers, finds out whether there is a run to resume, and writes
    config.yaml and status.json. Leaving writes the final status first, and then closes the tracker, which may be slow.

    Args:
        config: Of the run.
        run_dir: Its directory.
        resume: Resume the run in the directory, if there is one.

    Attributes:
        resumed: Whether there is a run to resume.
        finished: The summary, if the run is complete already and the config does not make it longer; else None.
        tracker: Closed at the end; set once it exists.
        trainer: Set once it exists.

    Raises:
        InputError: when the directory is in use, or holds a run and ``resume`` is false.
    """

    def __init__(self, config: Config, run_dir: RunDir, resume: bool = False) -> None:
        self.config, self.run_dir, self.resume = schema.with_absolute_paths(config), run_dir, resume
        self.resumed = False
        self.finished: dict[str, Any] | None = None
        self.tracker: Tracker = NullTracker()
        self.trainer: Progress | None = None
        self.summary: dict[str, Any] = {}
        self._coordinator = get_coordinator()
        self._stack = ExitStack()

    def __enter__(self) -> RunLifecycle:
        with ExitStack() as stack:
            stack.enter_context(self.run_dir.locked())
            stack.enter_context(handle_termination())
            self.resumed = self.resume and self.run_dir.holds_run()
            if self.resumed:
                self.run_dir.reject_escaping_links()
            else:
                self.run_dir.ensure_empty()
            if self._is_finished():
                self._report_finished()
            else:
                try:
                    self._announce()
                except BaseException as error:
                    raise self._end(error) from error
            self._stack = stack.pop_all()
        return self

    def _is_finished(self) -> bool:
        return (
            self.resumed and self.run_dir.summary.exists() and not extends(schema.load(self.run_dir.path), self.config)
        )

    def _report_finished(self) -> None:
        self.summary = self.finished = self.run_dir.read_summary()
        print_summary(self.summary)
        log.info("complete already: %s", self.run_dir.path)
        if self.run_dir.read_status().get("status") != Status.completed.value:
            self.run_dir.write_status(Status.completed, step=self.summary.get("steps"))

    def _announce(self) -> None:
        """Write config and status of the run, and send the job to the other ranks."""
        if not self.resumed:
            schema.save(self.config, self.run_dir.config)
            self.run_dir.write_status(Status.running)
        path = str(self.run_dir.path.absolute())
        self._coordinator.publish({"config": schema.to_yaml(self.config), "run_dir": path, "resumed": self.resumed})

    def begin_training(self, trainer: Progress) -> None:
        """Record that the training begins. A resumed run gets status ``running`` and its new config."""
        self.trainer = trainer
        if self.resumed:
            self.run_dir.summary.unlink(missing_ok=True)  # the run was complete, and is made longer
            self.run_dir.write_status(Status.running, step=trainer.steps)
            schema.save(self.config, self.run_dir.config)

    def complete(self, summary: dict[str, Any]) -> None:
        """Write the summary, last of all files."""
        with defer_signals():
            self.run_dir.write_status(Status.completed, step=self._steps())
            self.run_dir.write_summary(summary)
        self.summary = summary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with self._stack:
            if error is None:
                if self.finished is None:
                    self._coordinator.report_exit(None)
                    print_summary(self.summary)
                    log.info("run directory: %s", self.run_dir.path)
                    self.tracker.finish(exit_code=0)
                return False
            if isinstance(error, TrialPruned):
                self._prune(error)
                return True
            cause = self._end(error)
            if cause is not error:
                raise cause from error
            return False

    def _prune(self, pruned: TrialPruned) -> None:
        with defer_signals():
            self.run_dir.write_status(Status.pruned, step=self._steps(), why=str(pruned))
        log.info("%s; run directory: %s", pruned, self.run_dir.path)
        self.summary = {"status": Status.pruned.value}
        self.tracker.tag(PRUNED)
        self.tracker.finish(exit_code=0)

    def _end(self, error: BaseException) -> BaseException:
        """Write how the run ended; return its cause, which may be an error of another process."""
        cause = error
        try:
            with defer_signals():
                self._coordinator.report_exit(error)
                cause = self._coordinator.root_cause(error)
                self._write_end(cause)
                if cause is not error and not isinstance(cause, KeyboardInterrupt):
                    clear_deferred()
        except OSError as failure:  # a full disk, a directory that is gone
            log.error("status.json could not be written: %s", failure)
        finally:
            self.tracker.finish(outcome_of(cause)[1])
        return cause

    def _write_end(self, error: BaseException) -> None:
        status, _ = outcome_of(error)
        if self.resumed and self.trainer is None:
            before = self.run_dir.read_status()
            if before.get("status") == Status.running.value:  # it was killed
                self.run_dir.write_status(Status.interrupted, step=before.get("step", 0))
            log.error("resume refused: %s", error or type(error).__name__, extra=LOG_FILE_ONLY)
            return
        if self.run_dir.summary.exists():
            return
        step = self._steps()
        if status is Status.interrupted:
            self.run_dir.write_status(status, step=step)
            reason = f"{'terminated' if isinstance(error, Terminated) else 'interrupted'} at step {step}"
        elif status is Status.refused and self.trainer is None:
            self.run_dir.write_status(status, step=step, **describe_error(error))
            log.error("refused: %s", error, extra=LOG_FILE_ONLY)
            return
        else:
            self.run_dir.write_status(Status.failed, step=step, **describe_error(error))
            reason = f"failed at step {step}: {type(error).__name__}: {error}"
        log.error(reason, extra=LOG_FILE_ONLY)  # the command itself prints the error
        log.info("run directory: %s", self.run_dir.path)
        if self.trainer is not None and status is Status.interrupted:  # a failed run would most likely fail again
            trust = " trust=true" if any(untrusted_targets(asdict(self.config))) else ""
            log.info("to resume: python -m afqmc.run %s%s", quote(f"resume={self.run_dir.path}"), trust)

    def _steps(self) -> int:
        return 0 if self.trainer is None else self.trainer.steps


class WorkerLifecycle:
    """Context of one run in a rank other than 0, which writes no files.

    Attributes:
        resumed: Whether rank 0 resumes a run.
    """

    def __init__(self, resumed: bool) -> None:
        self.resumed = resumed
        self.finished: dict[str, Any] | None = None
        self.summary: dict[str, Any] = {}
        self.tracker: Tracker = NullTracker()
        self._coordinator = get_coordinator()
        self._signals = handle_termination()

    def __enter__(self) -> WorkerLifecycle:
        self._signals.__enter__()
        return self

    def begin_training(self, trainer: object) -> None:
        """Do nothing."""

    def complete(self, summary: dict[str, Any]) -> None:
        """Keep the summary; rank 0 writes it."""
        self.summary = summary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if error is None or isinstance(error, TrialPruned):
                log.info("%s", error or "done")
                self._coordinator.report_exit(None)
                return True
            with defer_signals():
                self._coordinator.report_exit(error)
                cause = self._coordinator.root_cause(error)
                if not isinstance(cause, KeyboardInterrupt):
                    clear_deferred()
            raise cause from error
        finally:
            self._signals.__exit__(None, None, None)


def describe_error(error: BaseException) -> dict[str, str]:
    """Return the entries for status.json: the message, and unless the input was invalid, the traceback."""
    if isinstance(error, InputError):
        return {"error": str(error)}
    return {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))}
