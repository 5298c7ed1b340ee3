"""``python -m afqmc.compare PATH ...``: rank runs and sweeps, and test whether the best setting beats the others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afqmc.cli import DONE, FAILED, reject_several_processes, run_command
from afqmc.utils.callable_module import make_callable
from afqmc.utils.command_help import CommandParser
from afqmc.utils.errors import InputError
from afqmc.utils.language import translate
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    from afqmc.comparison.report import ComparisonReport
    from afqmc.results.runs import Run
    from afqmc.tracking.config import TrackerConfig

_ALWAYS_UPLOADED = ("json", "md")  # to W&B, even if no file was requested


def main() -> int:
    """Read all runs, rank the settings, print the comparison and write the requested outputs."""
    reject_several_processes("compare")
    arguments = _parser().parse_args()

    configure_threads()
    from afqmc.comparison import exports
    from afqmc.comparison.builder import build
    from afqmc.comparison.published import PublishedResults
    from afqmc.comparison.terminal import print_report
    from afqmc.inference.protected_files import named_files, reject_input_as_output
    from afqmc.results.runs import find_runs
    from afqmc.run_dir import RunDir

    kinds: dict[str, Callable[[ComparisonReport], str]] = {
        **exports.KINDS,
        "html": partial(_page, with_sentences=not arguments.no_sentences, slice_columns=arguments.slice),
    }
    files = [(path, f"--{kind}", render) for kind, render in kinds.items() if (path := getattr(arguments, kind))]
    if arguments.slice and arguments.html is None:
        raise InputError(f"--slice {arguments.slice[0]}: only with --html FILE, whose page has the slices")
    for path, flag, _ in files:
        exports.check_output_path(path, flag, arguments.paths)
    runs = find_runs(arguments.paths)
    exports.reject_overlap([(path, flag) for path, flag, _ in files])
    inputs = [file for path in map(Path, arguments.paths) for file in RunDir(path).own_files()]
    inputs += [file for run in runs for file in (*RunDir(run.path).own_files(), *named_files(run.config))]
    for path, flag, _ in files:
        reject_input_as_output(path, flag, inputs)
    target = _upload_target(runs, arguments)
    published = None if arguments.published is None else PublishedResults.read(arguments.published)
    report = build(runs, arguments.metric, arguments.top, arguments.baseline, published)
    print_report(report, arguments.top)
    for path, flag, render in files:
        exports.write(path, render(report), flag)
    uploaded = [kind for kind in kinds if kind in _ALWAYS_UPLOADED or getattr(arguments, kind)]
    texts = {kind: kinds[kind](report) for kind in uploaded} if target else {}
    return _send(runs if arguments.wandb_sync else (), report, target, texts)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("compare")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run directories, directories with runs, or globs")
    parser.add_argument("--metric", metavar="NAME", help="for example dev/f1; default: the metric that runs monitored")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the setting to compare all others with; default: sweep.baseline, or the best",
    )
    parser.add_argument(
        "--published", metavar="NAME", help="compare with published results: afqmc, or a .yaml file like it"
    )
    parser.add_argument("--top", type=_count, default=20, metavar="N", help="settings to show and compare; default 20")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the printed output, with all settings")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs no network")
    parser.add_argument(
        "--no-sentences",
        action="store_true",
        help="leave the sentence pairs out of the page, which has them if the runs' data are on this machine",
    )
    parser.add_argument(
        "--slice",
        action="append",
        default=[],
        metavar="COLUMN",
        help="for the page: also compare by the values of this column of the data; may be repeated",
    )
    parser.add_argument("--wandb", action="store_true", help="upload the comparison to W&B as a separate run")
    parser.add_argument("--wandb-project", metavar="[ENTITY/]PROJECT", help="for --wandb; default: the runs' project")
    parser.add_argument("--wandb-sync", action="store_true", help="send runs that W&B does not have yet, in order")
    return parser


def _upload_target(runs: list[Run], arguments: argparse.Namespace) -> TrackerConfig | None:
    """Return where to upload the comparison; None without --wandb."""
    if not arguments.wandb:
        if arguments.wandb_project is not None:
            raise InputError("--wandb-project: the project for --wandb, but --wandb is missing")
        return None
    from afqmc.comparison.wandb import upload_target

    return upload_target(runs, arguments.wandb_project)


def _send(runs: Sequence[Run], report: ComparisonReport, target: TrackerConfig | None, texts: Mapping[str, str]) -> int:
    """Send to W&B and return the exit code. This comes last, so that a failure of W&B cannot lose the results."""
    if not runs and target is None:
        return DONE
    from afqmc.comparison.wandb import send

    code = DONE
    for result in send(runs, report, target, texts):
        print(translate(result.message), file=sys.stdout if result.succeeded else sys.stderr, flush=True)
        code = code if result.succeeded else FAILED
    return code


def _page(report: ComparisonReport, with_sentences: bool, slice_columns: Sequence[str]) -> str:
    from afqmc.comparison.html.page import as_html  # importing scikit-learn is slow

    return as_html(report, with_sentences, slice_columns)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number >= 1")
    return int(text)


def compare_paths(
    paths: Sequence[str | Path],
    metric: str | None = None,
    top: int = 20,
    baseline: str | None = None,
    published: str | None = None,
) -> ComparisonReport:
    """Rank the settings of runs and sweeps, and test whether the best one beats the others.

    Args:
        paths: Run directories, directories with runs, or globs.
        metric: Such as ``dev/f1``; by default, the metric that the runs monitored.
        top: Settings to compare.
        baseline: Name of the setting to compare all others with; by default ``sweep.baseline``, or the best.
        published: Published results to compare with: ``afqmc``, or a YAML file like it.

    Returns:
        The comparison; ``to_pandas()`` has a row per setting, and ``published`` a sentence per published result.

    Raises:
        InputError: if there is no complete run, no run has the metric, or the published results are about another one.
    """
    from afqmc.comparison.builder import build
    from afqmc.comparison.published import PublishedResults
    from afqmc.results.runs import find_runs

    results = None if published is None else PublishedResults.read(published)
    return build(find_runs(map(str, paths)), metric, top, baseline, results)


if __name__ == "__main__":
    sys.exit(run_command(main))
make_callable(__name__, compare_paths)
