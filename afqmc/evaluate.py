"""``python -m afqmc.evaluate PATH... [--data FILE]``: evaluate the best weights of one run or several."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.run_dir import RunDir
from afqmc.utils.command_help import CommandParser, add_loading_options
from afqmc.utils.errors import InputError
from afqmc.utils.files import nan_to_none
from afqmc.utils.language import translate
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    import numpy as np

    from afqmc.data.loading import Pairs
    from afqmc.evaluation.decision import Decided, Decision
    from afqmc.results.runs import Run


def main() -> int:
    """Evaluate on a file, or on the dev split of the run, and print the metrics."""
    reject_several_processes("evaluate")
    parser = CommandParser("evaluate")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, or several runs or a sweep to evaluate as an ensemble; then dataset.key=value if the "
        "columns of FILE have other names than those of the run's data",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled pairs, in the format of the run's data")
    parser.add_argument(
        "--holdout",
        type=Path,
        metavar="FILE",
        help="as --data, and record this use of the labels in FILE.ledger.jsonl, before they are read",
    )
    parser.add_argument("--hypothesis", metavar="TEXT", help="with --holdout: the question that this use answers")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="for several runs: write the ensemble's predictions and metrics"
    )
    parser.add_argument("--skip-incomplete", action="store_true", help="for several runs: leave out incomplete ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_loading_options(parser)
    arguments = parser.parse_intermixed_args()
    from afqmc.config.reading_options import split_overrides

    paths, overrides = split_overrides(arguments.paths)
    if not paths:
        raise InputError(f"{overrides[0]}: the first argument must be a run directory")
    if arguments.out is not None and arguments.data is not None:
        raise InputError("-o: not with --data; python -m afqmc.predict writes the predictions for a file")

    _check_holdout(arguments)

    configure_threads()
    from afqmc.results.ensemble import resolve_members

    runs = resolve_members(paths)
    if arguments.holdout is not None:
        return _evaluate_holdout(arguments, paths, runs, overrides)
    if runs is None:
        return _evaluate_run(arguments, paths[0], overrides)
    if arguments.data is not None:
        return _evaluate_ensemble(arguments, runs, overrides)
    if overrides:
        raise InputError(
            f"{overrides[0]}: only with --data FILE; without it, the stored predictions of the runs are read"
        )
    if arguments.engine != "torch":
        raise InputError("--engine: only with --data FILE; without it, the stored predictions of the runs are read")
    return _combine_predictions(arguments, paths, runs)


def _check_holdout(arguments: argparse.Namespace) -> None:
    if arguments.holdout is None:
        if arguments.hypothesis is not None:
            raise InputError("--hypothesis: only with --holdout FILE")
        if arguments.data is not None and (ledger := Path(f"{arguments.data}.ledger.jsonl")).exists():
            raise InputError(
                f"--data {arguments.data}: is a sealed holdout, since {ledger.name} exists; --holdout and --hypothesis "
                "evaluate on it and record the use"
            )
    elif arguments.data is not None or arguments.out is not None:
        raise InputError("--holdout: not with --data or -o")
    elif arguments.engine != "torch":
        raise InputError("--holdout: not with --engine")
    elif arguments.hypothesis is None:
        raise InputError(
            f"--holdout {arguments.holdout}: also needs --hypothesis TEXT, the question that this use of the labels "
            "answers; it is recorded before they are read"
        )


def _evaluate_holdout(
    arguments: argparse.Namespace, paths: list[str], runs: list[Run] | None, overrides: list[str]
) -> int:
    """Evaluate one run, or the mean of several, on a sealed file."""
    from afqmc.inference.holdout import evaluate_holdout
    from afqmc.inference.holdout_text import holdout_lines
    from afqmc.results.ensemble import require_complete

    members = (
        [Path(paths[0])] if runs is None else [run.path for run in require_complete(runs, arguments.skip_incomplete)]
    )
    options = arguments.device, arguments.trust, overrides
    result = evaluate_holdout(arguments.holdout, arguments.hypothesis, members, *options)
    scores = result.scores
    details = _details(result.metrics, scores.probabilities, result.gold, scores.labels)
    details = _with_intervals(details, scores.logits, replace(scores.pairs, labels=result.gold), level=result.level)
    interval = details["intervals"]["accuracy"]
    details["notes"] = []  # they may suggest a threshold that fits these labels
    source = {"file": scores.pairs.file, "pairs": len(scores.pairs)} | ({} if runs is None else {"runs": len(members)})
    if arguments.json:
        details["holdout"] = result.as_dict(interval)
    code = _report(arguments, source, result.metrics, details)
    for line in () if arguments.json else holdout_lines(result, interval):
        print(translate(line))
    return code


def _evaluate_run(arguments: argparse.Namespace, path: str, overrides: list[str]) -> int:
    from afqmc.evaluation.metrics import probabilities_of
    from afqmc.inference.predictor import Predictor
    from afqmc.results.data_changes import dev_changes

    if arguments.out is not None:
        raise InputError(f"-o: only for several runs; {path} is one run, and its predictions are in predictions/")
    predictor = Predictor.load(Path(path), arguments.device, arguments.trust, overrides, engine=arguments.engine)
    if predictor.engine_note:
        print(translate(predictor.engine_note), file=sys.stderr)
    pairs = predictor.read_pairs(arguments.data, labelled=True, key="--data")
    evaluation = predictor.evaluate(pairs)
    details = _details(evaluation.metrics, probabilities_of(evaluation.logits), pairs.labels, predictor.labels)
    metrics, changes = evaluation.metrics, dev_changes(Path(path), pairs, predictor.labels)
    decided = None
    if predictor.decision is not None:
        is_dev, folds = arguments.data is None or _has_dev_pairs(changes), predictor.config.decision.folds
        figures, decided, note = _decide(evaluation.logits, pairs, predictor.decision, folds, is_dev)
        metrics, details["notes"] = metrics | figures, [*details["notes"], *note]
    if arguments.data is None:
        details["data_changed"] = changes
        if changes is not None:
            effect = "these metrics are not comparable with those that the run recorded"
            warning = f"warning: {pairs.file}: changed since the run: {changes['text']}; {effect}"
            print(translate(warning), file=sys.stderr)
    details = _with_intervals(details, evaluation.logits, pairs, decided)
    return _report(arguments, {"file": pairs.file, "pairs": len(pairs)}, metrics, details)


def _has_dev_pairs(changes: dict[str, Any] | None) -> bool:
    """Return whether a file has the pairs of dev, on which the decision was chosen, in whatever order."""
    return changes is None or "reordered" in changes


def _decide(
    logits: np.ndarray, pairs: Pairs, decision: Decision, folds: int, is_dev: bool
) -> tuple[dict[str, float], Decided | None, list[str]]:
    """Return the metrics and the outcome of a decision, and a note on them; cross-fitted if it was chosen on the pairs.

    All are empty if dev has too few pairs for cross-fitting.
    """
    import numpy as np

    from afqmc.evaluation.decision import CrossFit

    if not is_dev:
        note = f"decided and calibrated figures: {decision.describe()}"
        return decision.metrics(logits, np.asarray(pairs.labels)), decision.apply(logits), [note]
    cross_fit = CrossFit.of(pairs, decision.metric, folds)
    if cross_fit is None:
        return {}, None, []
    note = "decided and calibrated figures: cross-fitted, as the decision was chosen on dev"
    return cross_fit.metrics(logits), cross_fit.decide(logits), [note]


def _evaluate_ensemble(arguments: argparse.Namespace, runs: list[Run], overrides: list[str]) -> int:
    """Evaluate the mean of the runs' probabilities on a file."""
    import numpy as np

    from afqmc.evaluation.metrics import classification_metrics
    from afqmc.inference.ensemble_scores import predict_mean
    from afqmc.results.data_changes import dev_changes
    from afqmc.results.ensemble import require_complete
    from afqmc.results.ensemble_decision import decide_ensemble

    paths = [run.path for run in require_complete(runs, arguments.skip_incomplete)]
    scores = predict_mean(
        paths,
        lambda predictor: predictor.read_pairs(arguments.data, labelled=True, key="--data"),
        arguments.device,
        arguments.trust,
        overrides,
        engine=arguments.engine,
    )
    for note in scores.engine_notes:
        print(translate(note), file=sys.stderr)
    metrics = classification_metrics(scores.logits, np.asarray(scores.pairs.labels))
    details = _details(metrics, scores.probabilities, scores.pairs.labels, scores.labels)
    decided = None
    if scores.has_unused_decisions:
        try:
            mean = decide_ensemble(paths)
            is_dev = _has_dev_pairs(dev_changes(paths[0], scores.pairs, scores.labels))
            figures, decided, notes = _decide(scores.logits, scores.pairs, mean.decision, mean.folds, is_dev)
            metrics = metrics | figures
        except InputError as error:
            notes = [f"the mean is not decided as one model: {error}"]
        details["notes"] = [*details["notes"], *notes]
    details = _with_intervals(details, scores.logits, scores.pairs, decided)
    source = {"file": scores.pairs.file, "pairs": len(scores.pairs), "runs": len(paths)}
    return _report(arguments, source, metrics, details)


def _combine_predictions(arguments: argparse.Namespace, paths: list[str], runs: list[Run]) -> int:
    """Combine the predictions that the runs stored for their folds and for the test split."""
    from afqmc.inference.protected_files import reject_input_as_output, run_files
    from afqmc.results.ensemble import Ensemble

    ensemble = Ensemble.of(runs, arguments.skip_incomplete)
    if arguments.out is not None:
        ensemble.check_directory(arguments.out)
        run_dirs = [*map(Path, paths), *(run.path for run in runs)]
        for file in ensemble.files(arguments.out):
            for run_dir in run_dirs:
                RunDir(run_dir).ensure_inside(file, "-o")
            reject_input_as_output(file, "-o", [path for run_dir in run_dirs for path in run_files(run_dir)])
        ensemble.write(arguments.out)
    if arguments.json:
        print(json.dumps(ensemble.summary(Path.cwd()), ensure_ascii=False))
        return DONE
    for name, part in ensemble.parts.items():
        title = f"{name}: {len(part.rows.ids)} pairs, {len(ensemble.setting.runs)} runs"
        if metrics := part.figures():
            _print_metrics(title, metrics, ensemble.detail(name))
        else:
            print(translate(f"{title}; no metrics, because it has no labels"))
    if arguments.out is not None:
        print(translate(f"written: {arguments.out}"))
    return DONE


def _details(
    metrics: Mapping[str, float], probabilities: np.ndarray, gold: Sequence[int] | None, labels: Sequence[str]
) -> dict[str, Any]:
    """Return the metrics per class, the confusion matrix and the notes."""
    import numpy as np

    from afqmc.evaluation.per_class import metric_notes, per_class

    expected = np.asarray(gold)
    notes = metric_notes(nan_to_none(dict(metrics)), probabilities, expected, labels)
    return {**per_class(probabilities, expected, labels), "notes": notes}


def _with_intervals(
    details: dict[str, Any], logits: np.ndarray, pairs: Pairs, decided: Decided | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Add the intervals over other pairs to the details of the metrics, if all pairs have a prediction."""
    from afqmc.results.metric_intervals import add_intervals, answers_of, groups_of

    answers = answers_of(logits, pairs, decided)
    return details if answers is None else add_intervals(details, answers, groups_of(pairs), level)


def _report(
    arguments: argparse.Namespace, source: dict[str, Any], metrics: Mapping[str, float], details: dict[str, Any]
) -> int:
    """Print the metrics as tables or as one JSON object."""
    values = nan_to_none(dict(metrics))
    if arguments.json:
        print(json.dumps({**source, **values, **details}, ensure_ascii=False))
    else:
        mean = f", the mean of {source['runs']} runs" if "runs" in source else ""
        _print_metrics(f"{source['file']}: {source['pairs']} pairs{mean}", values, details)
    return DONE


def _print_metrics(title: str, metrics: dict[str, Any], details: dict[str, Any]) -> None:
    from afqmc.inference.per_class_table import format_level, print_class_tables
    from afqmc.utils.console import print_table

    intervals = details.get("intervals", {})

    def cell(name: str, value: float | None) -> str:
        if value is None:
            return "undefined"
        if name not in intervals:
            return f"{value:.6f}"
        low, high = intervals[name]
        return f"{value:.6f}  ({format_level(details)} CI {low:.4f} to {high:.4f})"

    print_table(title, [(name.replace("_", " "), cell(name, value)) for name, value in metrics.items()])
    print_class_tables(details, details["notes"])


if __name__ == "__main__":
    sys.exit(run_command(main))
