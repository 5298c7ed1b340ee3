"""``python -m afqmc.evaluate PATH... [--data FILE]``: the best weights of a run or several, against labels."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    import numpy as np

    from afqmc.results.runs import Run


def main() -> int:
    """Score a file, or the run's own dev split, and print the figures."""
    reject_several_processes("evaluate")
    parser = argparse.ArgumentParser(prog="python -m afqmc.evaluate", description=__doc__)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory; or several, or a sweep's, to be put together; "
        "then dataset.key=value for columns that are not named as in the run's own files",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled pairs, in the format of the run's own")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="of several runs: write what they say together")
    parser.add_argument(
        "--skip-incomplete", action="store_true", help="of several runs: leave out what is not complete"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument("--trust", action="store_true", help="run the model code that the run directory names")
    arguments = parser.parse_intermixed_args()
    from afqmc.config.reading_options import split_overrides

    paths, overrides = split_overrides(arguments.paths)
    if not paths:
        raise InputError(f"{overrides[0]}: a run directory comes first")
    if arguments.out is not None and arguments.data is not None:
        raise InputError("-o: not with --data; python -m afqmc.predict writes what is said of a file")

    configure_threads()
    from afqmc.results.ensemble import resolve_members

    runs = resolve_members(paths)
    if runs is None:
        return _one(arguments, paths[0], overrides)
    if arguments.data is not None:
        return _scored(arguments, runs, overrides)
    if overrides:
        raise InputError(f"{overrides[0]}: only with --data FILE; several runs are put together from what they wrote")
    return _stored(arguments, paths, runs)


def _one(arguments: argparse.Namespace, path: str, overrides: list[str]) -> int:
    from afqmc.evaluation.metrics import probabilities_of
    from afqmc.inference.predictor import Predictor
    from afqmc.results.data_changes import dev_changes

    if arguments.out is not None:
        raise InputError(f"-o: {path} is one run, and holds its predictions; -o is for several")
    run = Predictor.open(Path(path), arguments.device, arguments.trust, overrides)
    pairs = run.read(arguments.data, labelled=True, key="--data")
    found = run.score(pairs)
    detail = _detail(found.metrics, probabilities_of(found.logits), pairs.labels, run.labels)
    if arguments.data is None:
        detail["data_changed"] = changed = dev_changes(Path(path), pairs, run.labels)
        if changed is not None:
            told = "these figures are not comparable with those that the run recorded"
            print(f"warning: {pairs.file}: changed since the run: {changed['text']}; {told}", file=sys.stderr)
    return _tell(arguments, {"file": pairs.file, "pairs": len(pairs)}, found.metrics, detail)


def _scored(arguments: argparse.Namespace, runs: list[Run], overrides: list[str]) -> int:
    """Each run scores the file; the figures are those of the mean."""
    import numpy as np

    from afqmc.evaluation.metrics import classification_metrics
    from afqmc.inference.predictor import predict_mean
    from afqmc.results.ensemble import require_complete

    paths = [run.path for run in require_complete(runs, arguments.skip_incomplete)]
    found = predict_mean(
        paths,
        lambda run: run.read(arguments.data, labelled=True, key="--data"),
        arguments.device,
        arguments.trust,
        overrides,
    )
    metrics = classification_metrics(found.logits, np.asarray(found.pairs.labels))
    detail = _detail(metrics, found.probabilities, found.pairs.labels, found.labels)
    scored = {"file": found.pairs.file, "pairs": len(found.pairs), "runs": len(paths)}
    return _tell(arguments, scored, metrics, detail)


def _stored(arguments: argparse.Namespace, paths: list[str], runs: list[Run]) -> int:
    """What the runs wrote of their folds and of the test split, put together."""
    from afqmc.inference.protected_files import files_of, reject_input_as_output
    from afqmc.results.ensemble import Ensemble

    ensemble = Ensemble.of(runs, arguments.skip_incomplete)
    if arguments.out is not None:
        ensemble.check_directory(arguments.out)
        places = [*map(Path, paths), *(run.path for run in runs)]
        for file in ensemble.files(arguments.out):
            for place in places:
                RunDir(place).ensure_inside(file, "-o")
            reject_input_as_output(file, "-o", [path for place in places for path in files_of(place)])
        ensemble.write(arguments.out)
    if arguments.json:
        print(json.dumps(ensemble.summary(Path.cwd()), ensure_ascii=False))
        return DONE
    for name, part in ensemble.parts.items():
        what = f"{name}: {len(part.rows.ids)} pairs, {len(ensemble.setting.runs)} runs"
        if figures := part.figures():
            _show(what, figures, part.detail())
        else:
            print(f"{what}; it has no labels, so there are no figures")
    if arguments.out is not None:
        print(f"written: {arguments.out}")
    return DONE


def _detail(
    metrics: Mapping[str, float], probabilities: np.ndarray, gold: Sequence[int] | None, labels: Sequence[str]
) -> dict[str, Any]:
    """Figures of each class, and the notes on all of them."""
    import numpy as np

    from afqmc.evaluation.per_class import metric_notes, per_class

    truth = np.asarray(gold)
    return {
        **per_class(probabilities, truth, labels),
        "notes": metric_notes(nan_to_none(dict(metrics)), probabilities, truth, labels),
    }  # fmt: skip


def _tell(
    arguments: argparse.Namespace, scored: dict[str, Any], metrics: Mapping[str, float], detail: dict[str, Any]
) -> int:
    figures = nan_to_none(dict(metrics))
    if arguments.json:
        print(json.dumps({**scored, **figures, **detail}, ensure_ascii=False))
    else:
        of = f", the mean of {scored['runs']} runs" if "runs" in scored else ""
        _show(f"{scored['file']}: {scored['pairs']} pairs{of}", figures, detail)
    return DONE


def _show(title: str, figures: dict[str, Any], detail: dict[str, Any]) -> None:
    from afqmc.inference.per_class_table import show_classes
    from afqmc.utils.console import print_table

    rows = [
        (name.replace("_", " "), "undefined" if value is None else f"{value:.6f}") for name, value in figures.items()
    ]
    print_table(title, rows)
    show_classes(detail, detail["notes"])


if __name__ == "__main__":
    sys.exit(run_command(main))
