"""``python -m afqmc.compare PATH ...``: runs and sweeps side by side, and whether the best is better than chance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afqmc.cli import DONE, exit_code
from afqmc.process import settle

if TYPE_CHECKING:
    from afqmc.comparison.report import Report


def main() -> int:
    """Read every run, rank the settings, say what can be said of them."""
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
    arguments = parser.parse_args()

    settle()
    from afqmc.comparison import writing
    from afqmc.comparison.report import build
    from afqmc.comparison.runs import find
    from afqmc.comparison.table import show

    kinds: dict[str, Callable[[Report], str]] = {
        **writing.KINDS,
        "html": partial(_page, with_sentences=not arguments.no_sentences),
    }
    files = [(path, f"--{kind}", text) for kind, text in kinds.items() if (path := getattr(arguments, kind))]
    for path, flag, _ in files:
        writing.check(path, flag, arguments.paths)
    report = build(find(arguments.paths), arguments.metric, arguments.top)
    show(report, arguments.top)
    for path, flag, text in files:
        writing.write(path, text(report), flag)
    return DONE


def _page(report: Report, with_sentences: bool) -> str:
    from afqmc.comparison.page.build import as_html  # scikit-learn takes a while

    return as_html(report, with_sentences)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number >= 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(exit_code(main))
