"""``python -m afqmc.predict RUN_DIR FILE -o OUT``: probabilities for pairs; ``--clue`` writes the CLUE submission.

Directories are runs: of several, or of a sweep, the mean is taken. What is not a directory is a file of pairs, ``-`` is
standard input (JSON lines, unless dataset.format says otherwise). Files are read with the run's column names, unless
dataset.key=value says otherwise. The format follows the name of OUT: .jsonl (id, probability, prediction), or .csv,
.tsv, .parquet and .xlsx (all columns of FILE, then probability and prediction); ``-`` prints JSON lines. With two
classes the probability is that of the second; with more there is one for each.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.utils.errors import InputError
from afqmc.utils.process import configure_threads

_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_OF_A_SWEEP = ("sweep.json", "results.csv", "results.jsonl", "multirun.yaml")  # which a shell's SWEEP/* names too


def main() -> int:
    """Predict files or a pair with the best weights of a run, or with the mean of several."""
    reject_several_processes("predict")
    arguments = parsed()

    from afqmc.config.reading_options import split_overrides

    paths, overrides = split_overrides(arguments.paths)
    runs, files = split_paths(paths)
    if bool(files) == bool(arguments.pair):
        raise InputError("name a FILE of pairs, or - for standard input, or one pair by --pair A B; not both")
    if arguments.clue and (arguments.pair or len(files) > 1):
        raise InputError("--clue: a submission is made of one FILE, the test file of the task")
    out = Path("-") if arguments.out is None or arguments.out in _STDOUT else Path(arguments.out)
    if str(out) == "-" and arguments.out is None and not arguments.pair:
        raise InputError("-o: is missing; it names the file to write, and - is standard output")

    configure_threads()
    from afqmc.data.loading import Pairs
    from afqmc.inference.input_files import Inputs
    from afqmc.inference.output_files import check_columns, render
    from afqmc.inference.output_formats import check_format
    from afqmc.inference.prediction_columns import warning_of
    from afqmc.inference.predictor import Predictor, predict_mean
    from afqmc.inference.protected_files import write_output

    run_dirs, of_several = _members(runs, out, files, arguments.skip_incomplete)
    check_format(out, arguments.clue)
    inputs = Inputs(files, arguments.pair)

    def read(run: Predictor) -> Pairs:
        pairs = inputs.read(run)
        check_columns(run, inputs, pairs, out, arguments.clue)
        return pairs

    found = predict_mean(run_dirs, read, arguments.device, arguments.trust, overrides, labelled=False)
    found.refuse_nan()
    content, told = render(found, inputs, out, arguments.clue), f"{len(found.pairs)} pairs{of_several}"
    if str(out) == "-":
        sys.stdout.buffer.write(content)
        if not arguments.pair:
            print(told, file=sys.stderr)
        return DONE
    write_output(out, "-o", content)
    print(f"{out}: {told}")
    if warning := warning_of(inputs.rows, out.suffix.lower()):
        print(f"warning: {out}: {warning}", file=sys.stderr)
    return DONE


def parsed() -> argparse.Namespace:
    """The command line; which of its paths are runs is seen later."""
    parser = argparse.ArgumentParser(
        prog="python -m afqmc.predict",
        usage="%(prog)s RUN_DIR [RUN_DIR ...] FILE [FILE ...] -o OUT [dataset.key=value ...] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="first a run directory or a sweep; then files, or more directories"
    )
    parser.add_argument("-o", "--out", metavar="OUT", help="file to write, or -; with --clue .json, .jsonl or .zip")
    parser.add_argument(
        "--pair", nargs=2, action="append", default=[], metavar=("A", "B"), help="predict this pair instead of a FILE"
    )
    parser.add_argument(
        "--clue", action="store_true", help='only {"id": 0, "label": "0"} per line, in the order of FILE'
    )
    parser.add_argument(
        "--skip-incomplete", action="store_true", help="of several runs: leave out what is not complete"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument("--trust", action="store_true", help="run the model code that the run directory names")
    return parser.parse_intermixed_args()


def split_paths(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Runs and files: the first path is a run, and so is every directory; what a sweep itself writes is neither."""
    runs = [path for number, path in enumerate(paths) if number == 0 or _is_directory(path)]
    homes = {os.path.dirname(os.path.abspath(run)) for run in runs}
    files = [
        Path(path)
        for path in paths[1:]
        if not _is_directory(path)
        and not (os.path.basename(path) in _OF_A_SWEEP and os.path.dirname(os.path.abspath(path)) in homes)
    ]
    return runs, files


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) or (not os.path.lexists(path) and any(map(os.path.isdir, glob.iglob(path))))


def _members(runs: Sequence[str], out: Path, files: Sequence[Path], skip_incomplete: bool) -> tuple[list[Path], str]:
    """The run directories whose mean is taken, and what is said of it; of one run nothing."""
    from afqmc.inference.protected_files import check_output
    from afqmc.results.ensemble import require_complete, resolve_members
    from afqmc.results.settings import varying_keys

    found = resolve_members(runs)
    if str(out) != "-":
        places = [*map(Path, runs), *(run.path for run in found or ())]
        check_output(out, "-o", places, files)
    if found is None:
        return [Path(runs[0])], ""
    members = require_complete(found, skip_incomplete)
    apart = f", which differ in {', '.join(keys)}" if (keys := varying_keys(members)) else ""
    return [run.path for run in members], f", the mean of {len(members)} runs{apart}"


if __name__ == "__main__":
    sys.exit(run_command(main))
