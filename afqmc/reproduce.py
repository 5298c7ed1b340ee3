"""``python -m afqmc.reproduce RUN_DIR``: repeat a run from its record, and report whether the result is the same."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afqmc.cli import DONE, FAILED, exit_now, run_command
from afqmc.distributed.rank import export_torchrun_env
from afqmc.distributed.rendezvous import get_coordinator
from afqmc.utils.command_help import CONFIG_NAMES, RUN, CommandParser
from afqmc.utils.errors import InputError, printable
from afqmc.utils.language import translate
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    from afqmc.results.repetition import Repetition
    from afqmc.results.run_record import RunRecord
    from afqmc.runner.record_checks import RecordChanges


def main() -> int:
    """Repeat a run; with several processes, the other ranks receive the job from rank 0."""
    export_torchrun_env()
    coordinator = get_coordinator()
    if not coordinator.rank.is_main:
        from afqmc.runner.worker import run_worker

        return run_worker()
    try:
        return _reproduce(_parser().parse_args())
    finally:
        coordinator.dismiss_workers()


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("reproduce")
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the directory of a complete run")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="a new directory for the repetition; default: below outputs/runs"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="repeat and compare only the first N steps")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the directory or zip of the data, if it has moved")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--trust", action="store_true", help="allow the code that the run's config names")
    return parser


def _reproduce(arguments: argparse.Namespace) -> int:
    """Check, repeat, compare, report; return 0 unless the result is different."""
    from afqmc.results.repetition import Outcome, check_rows, compare_repetition, other_seeds
    from afqmc.results.run_record import RunRecord
    from afqmc.results.runs import read_run

    record = RunRecord.read(arguments.run, arguments.trust)
    if arguments.data is not None:
        record = record.with_data(arguments.data)
    _check_processes(record, arguments.steps)
    if arguments.steps is not None:
        check_rows(record.run, arguments.steps)
    out = arguments.out or _default_directory(arguments.run)
    _check_directory(out, arguments.run)
    configure_threads(threads=record.threads)
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        changes = _check_machine_and_data(record)
        repeat(record, out, arguments.steps)
    repeated = read_run(out, out.name)
    result = compare_repetition(
        record.run, repeated, record.precision, changes.causes, other_seeds(record.run), arguments.steps
    )
    _report(arguments, out, changes, result)
    return FAILED if result.verdict is Outcome.different else DONE


def _check_processes(record: RunRecord, steps: int | None) -> None:
    """Check that there are as many processes as in the run: the sums depend on how a batch is divided."""
    processes = get_coordinator().rank.world_size
    if processes != record.processes:
        raise InputError(
            f"{record.run.path}: the run used {record.processes} processes, and this command {processes}; start it as "
            f"the run was started, for example: torchrun --nproc_per_node {record.processes} -m afqmc.reproduce RUN_DIR"
        )
    if steps is not None and (steps < 1 or processes > 1):
        raise InputError(f"--steps {steps}: must be >= 1, and needs a run of one process")


def _default_directory(run: Path) -> Path:
    return Path("outputs/runs") / f"{time.strftime('%Y-%m-%d/%H-%M-%S')}-reproduce-{run.absolute().name}"


def _check_directory(out: Path, run: Path) -> None:
    """Check that the output directory is new and not in the run directory, whose links may lead anywhere."""
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"-o {out}: is in {run}; name a new directory outside of it")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise InputError(f"-o {out}: exists already; name a new directory")


def _check_machine_and_data(record: RunRecord) -> RecordChanges:
    """Print what differs from the record; refuse other data."""
    from afqmc.runner.record_checks import check_recorded_data, compare_environment

    changes = compare_environment(record)
    if texts := [*changes.rounding, *changes.other]:
        print(translate(printable(f"differs from the record: {'; '.join(texts)}")))
    else:
        print(translate("as in the record: device, threads, versions, code"))
    if warning := check_recorded_data(record):
        print(translate(f"warning: {warning}"))
    return changes


def repeat(record: RunRecord, out: Path, steps: int | None = None) -> None:
    """Run the config of a record in a new directory, as ``python -m afqmc.run`` does.

    Raises:
        InputError: for invalid config or data.
    """
    from afqmc.config import register
    from afqmc.config.hydra_app import run_hydra
    from afqmc.config.overrides import literal
    from afqmc.run import run
    from afqmc.runner.callbacks.step_limit import StepLimit

    callbacks = [] if steps is None else [StepLimit(steps)]
    register()
    directory = literal(str(out.absolute()))
    argv, sys.argv = sys.argv, ["afqmc.run", f"hydra.run.dir={directory}", "hydra.output_subdir=null"]
    try:
        run_hydra(partial(run, saved=record.config, callbacks=callbacks), CONFIG_NAMES[RUN])
    finally:
        sys.argv = argv


def _report(arguments: argparse.Namespace, out: Path, changes: RecordChanges, result: Repetition) -> None:
    if arguments.json:
        differences = {"rounding": list(changes.rounding), "other": list(changes.other)}
        content = {"run": str(arguments.run), "repeated": str(out), "record_differs": differences, **result.as_dict()}
        print(json.dumps(content, ensure_ascii=False))
        return
    from afqmc.results.repetition_text import verdict_lines

    for line in verdict_lines(result, changes.causes):
        print(translate(line))
    print(translate(f"the repetition is in {out}"))


if __name__ == "__main__":
    exit_now(run_command(main))
