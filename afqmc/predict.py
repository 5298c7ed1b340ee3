"""``python -m afqmc.predict RUN_DIR FILE -o OUT``: predict pairs; ``--clue`` writes the CLUE submission."""

from __future__ import annotations

import argparse
import glob
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.utils.command_help import CommandParser, add_loading_options
from afqmc.utils.errors import InputError
from afqmc.utils.language import translate
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    from afqmc.evaluation.abstention import Abstention
    from afqmc.inference.ensemble_scores import EnsembleScores

_DETAILS = """\
A PATH that is a directory is a run or a sweep; the mean of several runs is predicted. Any other PATH is a file of
pairs, and - is standard input (JSON lines unless dataset.format is set). Files have the column names of the run's
data unless dataset.key=value changes them. The suffix of OUT chooses the format: .jsonl has id, probability and
prediction; .csv, .tsv, .parquet and .xlsx have all columns of FILE, then probability and prediction. - prints JSON
lines. With two classes, the probability is that of the second; with more, there is one per class. One run uses its
calibration and threshold (decision.metric); the mean of several runs with the same dev pairs has its own, fitted on
their dev predictions. Without a decision, the likeliest label is predicted."""
_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_SWEEP_FILES = ("sweep.json", "results.csv", "results.jsonl", "multirun.yaml")  # ignored, so that SWEEP/* works


def main() -> int:
    """Predict files or single pairs with the best weights of one run, or with the mean of several."""
    reject_several_processes("predict")
    arguments = parse_arguments()

    from afqmc.config.reading_options import split_overrides

    paths, overrides = split_overrides(arguments.paths)
    runs, files = split_paths(paths)
    if bool(files) == bool(arguments.pair):
        raise InputError("give either a FILE of pairs (- is standard input) or --pair A B")
    if arguments.clue and (arguments.pair or len(files) > 1):
        raise InputError("--clue: needs exactly one FILE, the test file of the task")
    if arguments.clue and arguments.abstain is not None:
        raise InputError("--abstain: not with --clue, which needs a prediction for each pair")
    out = Path("-") if arguments.out is None or arguments.out in _STDOUT else Path(arguments.out)
    if str(out) == "-" and arguments.out is None and not arguments.pair:
        raise InputError("-o: is missing; give the file to write, or - for standard output")

    configure_threads()
    from afqmc.data.loading import Pairs
    from afqmc.inference.ensemble_scores import predict_mean
    from afqmc.inference.input_files import Inputs
    from afqmc.inference.output_files import check_output_columns, render
    from afqmc.inference.output_formats import check_format
    from afqmc.inference.prediction_columns import count_formulas, formula_warning
    from afqmc.inference.predictor import Predictor
    from afqmc.inference.protected_files import write_output
    from afqmc.inference.streaming import is_large

    run_dirs, ensemble_note = _resolve_runs(runs, out, files, arguments.skip_incomplete)
    check_format(out, arguments.clue)
    is_plain = not arguments.clue and arguments.abstain is None
    if len(run_dirs) == len(files) == 1 and is_plain and is_large(files[0], out):
        return _predict_large(arguments, run_dirs[0], files[0], out, overrides)
    inputs = Inputs(files, arguments.pair)
    abstention = None if arguments.abstain is None else _choose_cut(run_dirs, arguments.abstain)

    def read(predictor: Predictor) -> Pairs:
        pairs = inputs.read(predictor)
        check_output_columns(predictor, inputs, pairs, out, arguments.clue, abstention)
        return pairs

    scores = predict_mean(run_dirs, read, arguments.device, arguments.trust, overrides, False, arguments.engine)
    for note in scores.engine_notes:
        print(translate(note), file=sys.stderr)
    scores.reject_nan()
    scores, ensemble_decision = _decide_mean(scores, run_dirs)
    scores = replace(scores, abstention=abstention)
    content, summary = render(scores, inputs, out, arguments.clue), f"{len(scores.pairs)} pairs{ensemble_note}"
    if str(out) == "-":
        sys.stdout.buffer.write(content)
        if not arguments.pair:
            print(translate(summary), file=sys.stderr)
    else:
        write_output(out, "-o", content)
        print(f"{out}: {translate(summary)}")
    if decision_note := scores.describe_decision():
        print(translate(decision_note), file=sys.stderr)
    if ensemble_decision:
        print(translate(ensemble_decision), file=sys.stderr)
    if cut := scores.truncation_warning():
        print(translate(f"warning: {scores.pairs.file}: {cut}"), file=sys.stderr)
    if formulas := count_formulas(inputs.rows, out.suffix.lower()):
        print(translate(f"warning: {out}: {formula_warning(formulas)}"), file=sys.stderr)
    return DONE


def _decide_mean(scores: EnsembleScores, run_dirs: Sequence[Path]) -> tuple[EnsembleScores, str]:
    """Add the decision of the mean of several runs; return also its figures, or the reason why there is no decision."""
    from afqmc.results.ensemble_decision import decide_ensemble

    if not scores.has_unused_decisions:
        return scores, ""
    try:
        decided = decide_ensemble(run_dirs)
    except InputError as error:
        return scores, f"the mean is not decided as one model: {error}"
    return replace(scores, decision=decided.decision, has_unused_decisions=False), decided.figures


def _predict_large(arguments: argparse.Namespace, run_dir: Path, path: Path, out: Path, overrides: list[str]) -> int:
    """Predict a large file in chunks; the same command resumes after an interruption."""
    from afqmc.inference.predictor import Predictor
    from afqmc.inference.run_files import open_data_file
    from afqmc.inference.streaming import LargeFile
    from afqmc.run_dir import RunDir

    predictor = Predictor.load(
        run_dir, arguments.device, arguments.trust, overrides, labelled=False, engine=arguments.engine
    )
    if predictor.engine_note:
        print(translate(predictor.engine_note), file=sys.stderr)
    file = open_data_file(path, predictor.config.dataset, "FILE")
    count, warnings = LargeFile(predictor, RunDir(run_dir), file, out).predict()
    for warning in warnings:
        print(translate(f"warning: {out}: {warning}"), file=sys.stderr)
    for note in file.notes:
        print(translate(f"warning: {file.name}: {note}"), file=sys.stderr)
    print(f"{out}: {translate(f'{count} pairs')}")
    if predictor.decision is not None:
        print(translate(predictor.decision.describe_use()), file=sys.stderr)
    return DONE


def parse_arguments() -> argparse.Namespace:
    """Parse the command line. ``paths`` has runs, files and overrides in one list."""
    parser = CommandParser(
        "predict",
        usage="%(prog)s RUN_DIR [RUN_DIR ...] FILE [FILE ...] -o OUT [dataset.key=value ...] [options]",
        details=_DETAILS,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="first a run or sweep directory; then files, or more directories"
    )
    parser.add_argument("-o", "--out", metavar="OUT", help="output file, or -; with --clue .json, .jsonl or .zip")
    parser.add_argument(
        "--pair", nargs=2, action="append", default=[], metavar=("A", "B"), help="predict this pair instead of a FILE"
    )
    parser.add_argument(
        "--clue", action="store_true", help='write {"id": 0, "label": "0"} per line, in the order of FILE'
    )
    parser.add_argument(
        "--abstain",
        metavar="RATE",
        help="leave uncertain pairs without a prediction, such that at most this share of the others is wrong",
    )
    parser.add_argument("--skip-incomplete", action="store_true", help="for several runs: leave out incomplete ones")
    add_loading_options(parser)
    return parser.parse_intermixed_args()


def split_paths(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Split paths into runs and files. The first path and all directories are runs. Files of a sweep are ignored."""
    runs = [path for index, path in enumerate(paths) if index == 0 or _is_directory(path)]
    sweep_dirs = {os.path.dirname(os.path.abspath(run)) for run in runs}
    files = [
        Path(path)
        for path in paths[1:]
        if not _is_directory(path)
        and not (os.path.basename(path) in _SWEEP_FILES and os.path.dirname(os.path.abspath(path)) in sweep_dirs)
    ]
    return runs, files


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) or (not os.path.lexists(path) and any(map(os.path.isdir, glob.iglob(path))))


def _resolve_runs(
    paths: Sequence[str], out: Path, files: Sequence[Path], skip_incomplete: bool
) -> tuple[list[Path], str]:
    """Return the run directories to average, and a note on them for the summary; "" for one run."""
    from afqmc.inference.protected_files import check_output
    from afqmc.results.ensemble import require_complete, resolve_members
    from afqmc.results.settings import varying_keys

    members = resolve_members(paths)
    if str(out) != "-":
        check_output(out, "-o", [*map(Path, paths), *(run.path for run in members or ())], files)
    if members is None:
        return [Path(paths[0])], ""
    runs = require_complete(members, skip_incomplete)
    difference = f", which differ in {', '.join(keys)}" if (keys := varying_keys(runs)) else ""
    return [run.path for run in runs], f", the mean of {len(runs)} runs{difference}"


def _choose_cut(run_dirs: Sequence[Path], rate: str) -> Abstention:
    """Choose on the stored dev predictions of a run which pairs are left without a prediction.

    Raises:
        InputError: if the rate is invalid or cannot be promised, or the predictions cannot be read.
    """
    from afqmc.evaluation.abstention import choose_cut
    from afqmc.results.predictions import Predictions
    from afqmc.results.runs import find_runs

    try:
        share = float(rate)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise InputError(f"--abstain {rate}: must be a number > 0 and < 1, such as 0.02")
    if len(run_dirs) > 1:
        raise InputError("--abstain: only for one run; the dev predictions of a run say nothing about a mean")
    [run] = find_runs([str(run_dirs[0])])
    try:
        answers = Predictions.of(run, "dev/accuracy").answers
    except InputError as error:
        raise InputError(f"--abstain: {run.path}: {error}") from error
    return choose_cut(answers.logits, answers.gold, share)


if __name__ == "__main__":
    sys.exit(run_command(main))
