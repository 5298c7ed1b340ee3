"""``python -m afqmc.compare PATH ...``: runs and sweeps side by side, and whether the best is better than chance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afqmc.cli import DONE, FAILED, reject_several_processes, run_command
from afqmc.utils.errors import InputError
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    from afqmc.comparison.report import Report
    from afqmc.results.runs import Run
    from afqmc.tracking.config import TrackerConfig

_UPLOADED = ("json", "md")  # with the comparison to W&B, whatever else is asked for


def main() -> int:
    """Read every run, rank the settings, say what can be said of them."""
    reject_several_processes("compare")
    parser = argparse.ArgumentParser(prog="python -m afqmc.compare", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run directories, directories of such, or globs")
    parser.add_argument("--metric", metavar="NAME", help="as dev/f1; default: what the runs monitored")
    parser.add_argument("--top", type=_count, default=20, metavar="N", help="settings to show and compare; default 20")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row a run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write what is shown, all settings")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs no network")
    parser.add_argument(
        "--no-sentences",
        action="store_true",
        help="leave the pairs' sentences out of the page; it holds them where the runs' data lie on this machine",
    )
    parser.add_argument("--wandb", action="store_true", help="upload the comparison to W&B, in a run of its own")
    parser.add_argument("--wandb-project", metavar="[ENTITY/]PROJECT", help="of --wandb; default: that of the runs")
    parser.add_argument("--wandb-sync", action="store_true", help="send the runs that W&B has not got, in order")
    arguments = parser.parse_args()

    configure_threads()
    from afqmc.comparison import exports as writing
    from afqmc.comparison.builder import build
    from afqmc.comparison.terminal import show
    from afqmc.inference.protected_files import named_files, reject_input_as_output
    from afqmc.results.runs import find
    from afqmc.run_dir import RunDir

    kinds: dict[str, Callable[[Report], str]] = {
        **writing.KINDS,
        "html": partial(_page, with_sentences=not arguments.no_sentences),
    }
    files = [(path, f"--{kind}", text) for kind, text in kinds.items() if (path := getattr(arguments, kind))]
    for path, flag, _ in files:
        writing.check(path, flag, arguments.paths)
    runs = find(arguments.paths)
    writing.reject_overlap([(path, flag) for path, flag, _ in files])
    inputs = [file for path in map(Path, arguments.paths) for file in RunDir(path).own_files()]
    inputs += [file for run in runs for file in (*RunDir(run.path).own_files(), *named_files(run.config))]
    for path, flag, _ in files:
        reject_input_as_output(path, flag, inputs)
    place = _place(runs, arguments)
    report = build(runs, arguments.metric, arguments.top)
    show(report, arguments.top)
    for path, flag, text in files:
        writing.write(path, text(report), flag)
    wanted = [kind for kind in kinds if kind in _UPLOADED or getattr(arguments, kind)]
    texts = {kind: kinds[kind](report) for kind in wanted} if place else {}
    return _send(runs if arguments.wandb_sync else (), report, place, texts)


def _place(runs: list[Run], arguments: argparse.Namespace) -> TrackerConfig | None:
    """Where the comparison is uploaded to; None for nowhere."""
    if not arguments.wandb:
        if arguments.wandb_project is not None:
            raise InputError("--wandb-project: says where --wandb uploads the comparison to, and --wandb is missing")
        return None
    from afqmc.comparison.wandb import upload_target

    return upload_target(runs, arguments.wandb_project)


def _send(runs: Sequence[Run], report: Report, place: TrackerConfig | None, texts: Mapping[str, str]) -> int:
    """The last thing that is done: no failure of W&B may cost the table."""
    if not runs and place is None:
        return DONE
    from afqmc.comparison.wandb import send

    code = DONE
    for told in send(runs, report, place, texts):
        print(told.line, file=sys.stdout if told.is_well else sys.stderr, flush=True)
        code = code if told.is_well else FAILED
    return code


def _page(report: Report, with_sentences: bool) -> str:
    from afqmc.comparison.html.page import as_html  # scikit-learn takes a while

    return as_html(report, with_sentences)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number >= 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
