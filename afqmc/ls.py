"""``python -m afqmc.ls [PATH]``: list the runs in a directory, newest first."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.results.runs import Run, find_runs, format_time, last_written
from afqmc.run_dir import Status
from afqmc.utils.command_help import CommandParser
from afqmc.utils.console import cell_width, format_duration
from afqmc.utils.errors import InputError, printable
from afqmc.utils.language import translate

_DEFAULT = "outputs"
_COLUMNS = ("last written", "status", "best", "time", "run")


def main() -> int:
    """Print one row per run: when it was last written to, status, best value of the monitored metric, duration."""
    reject_several_processes("ls")
    arguments = _parser().parse_args()
    if arguments.path is None and not Path(_DEFAULT).is_dir():
        raise InputError(f"there is no directory {_DEFAULT} here; name the directory to list: afqmc ls PATH")
    runs = sorted(find_runs([arguments.path or _DEFAULT]), key=lambda run: (-last_written(run.path), str(run.path)))
    if arguments.json:
        print(json.dumps([_as_dict(run) for run in runs], ensure_ascii=False, indent=2))
    else:
        _print_table(runs)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("ls")
    parser.add_argument("path", nargs="?", metavar="PATH", help=f"a directory with runs; default: {_DEFAULT}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _print_table(runs: Sequence[Run]) -> None:
    rows = [tuple(map(translate, _COLUMNS)), *(_cells(run) for run in runs)]
    widths = [max(cell_width(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = (cell + " " * (width - cell_width(cell)) for cell, width in zip(row, widths, strict=False))
        print("  ".join([*cells, row[-1]]))


def _cells(run: Run) -> tuple[str, ...]:
    value = _best_value(run)
    best = "" if value is None else f"{run.monitor} {value:.4f}"
    duration = "" if run.total_seconds is None else format_duration(run.total_seconds)
    why = "" if run.status == Status.completed.value or not run.why else f"  ({translate(run.why)})"
    return format_time(last_written(run.path)), translate(run.status), best, duration, printable(f"{run.path}{why}")


def _best_value(run: Run) -> float | None:
    """Return the monitored metric of the best weights; None for a run that is not complete."""
    return None if run.monitor is None else run.figures.get(run.monitor)


def _as_dict(run: Run) -> dict[str, object]:
    return {
        "path": str(run.path),
        "status": run.status,
        "why": run.why,
        "last_written": last_written(run.path),
        "monitor": run.monitor,
        "best": _best_value(run),
        "total_seconds": run.total_seconds,
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
