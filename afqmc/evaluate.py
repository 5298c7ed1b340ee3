"""``python -m afqmc.evaluate PATH... [--data FILE]``: the best weights of a run or several, against labels."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, exit_code
from afqmc.errors import InputError
from afqmc.process import settle
from afqmc.rundir import RunDir, finite

if TYPE_CHECKING:
    from afqmc.comparison.runs import Run


def main() -> int:
    """Score a file, or the run's own dev split, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m afqmc.evaluate", description=__doc__)
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a run directory; or several, or a sweep's, to be put together"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled pairs, in the format of the run's own")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="of several runs: write what they say together")
    parser.add_argument(
        "--skip-incomplete", action="store_true", help="of several runs: leave out what is not complete"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument("--trust", action="store_true", help="run the model code that the run directory names")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.data is not None:
        raise InputError("-o: not with --data; python -m afqmc.predict writes what is said of a file")

    settle()
    from afqmc.ensemble import several

    runs = several(arguments.paths)
    if runs is None:
        return _one(arguments)
    return _stored(arguments, runs) if arguments.data is None else _scored(arguments, runs)


def _one(arguments: argparse.Namespace) -> int:
    from afqmc.scoring import TrainedRun

    if arguments.out is not None:
        raise InputError(f"-o: {arguments.paths[0]} is one run, and holds its predictions; -o is for several")
    run = TrainedRun.open(Path(arguments.paths[0]), arguments.device, arguments.trust)
    pairs = run.read(arguments.data, labelled=True, key="--data")
    return _tell(arguments, pairs.file, len(pairs), dict(run.score(pairs).metrics))


def _scored(arguments: argparse.Namespace, runs: list[Run]) -> int:
    """Each run scores the file; the figures are those of the mean."""
    import numpy as np

    from afqmc.ensemble import complete
    from afqmc.metrics.classification import classification_metrics
    from afqmc.scoring import score_together

    paths = [run.path for run in complete(runs, arguments.skip_incomplete)]
    found = score_together(paths, arguments.data, True, "--data", arguments.device, arguments.trust)
    metrics = classification_metrics(found.logits, np.asarray(found.pairs.labels))
    return _tell(arguments, found.pairs.file, len(found.pairs), metrics, runs=len(paths))


def _stored(arguments: argparse.Namespace, runs: list[Run]) -> int:
    """What the runs wrote of their folds and of the test split, put together."""
    from afqmc.ensemble import Ensemble

    ensemble = Ensemble.of(runs, arguments.skip_incomplete)
    if arguments.out is not None:
        for place in (*map(Path, arguments.paths), *(run.path for run in runs)):
            for file in ensemble.files(arguments.out):
                RunDir(place).refuse_detour(file, "-o")
        ensemble.write(arguments.out)
    if arguments.json:
        print(json.dumps(ensemble.summary(Path.cwd()), ensure_ascii=False))
        return DONE
    for name, part in ensemble.parts.items():
        what = f"{name}: {len(part.rows.ids)} pairs, {len(ensemble.setting.runs)} runs"
        if figures := part.figures():
            _show(what, figures)
        else:
            print(f"{what}; it has no labels, so there are no figures")
    if arguments.out is not None:
        print(f"written: {arguments.out}")
    return DONE


def _tell(arguments: argparse.Namespace, file: str, pairs: int, metrics: dict[str, float], **more: int) -> int:
    figures = finite(metrics)
    if arguments.json:
        print(json.dumps({"file": file, "pairs": pairs, **more, **figures}, ensure_ascii=False))
    else:
        of = f", the mean of {more['runs']} runs" if more else ""
        _show(f"{file}: {pairs} pairs{of}", figures)
    return DONE


def _show(title: str, figures: dict[str, Any]) -> None:
    from afqmc.console import print_table

    rows = [
        (name.replace("_", " "), "undefined" if value is None else f"{value:.6f}") for name, value in figures.items()
    ]
    print_table(title, rows)


if __name__ == "__main__":
    sys.exit(exit_code(main))
