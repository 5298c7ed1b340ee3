"""``python -m afqmc.predict PATH... FILE -o OUT``: probabilities for pairs; ``--clue`` writes the CLUE submission."""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path

from afqmc.cli import DONE, exit_code
from afqmc.errors import InputError
from afqmc.process import settle
from afqmc.rundir import RunDir

_CLUE_NAME = "afqmc_predict.json"  # what the leaderboard looks for inside the zip


def main() -> int:
    """Predict a file with the best weights of a run, or with the mean of several."""
    parser = argparse.ArgumentParser(prog="python -m afqmc.predict", description=__doc__)
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a run directory; or several, or a sweep's, whose mean is taken"
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="pairs, in the format of the run's own; labels are not read"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="JSON lines; with --clue also .zip"
    )
    parser.add_argument("--clue", action="store_true", help='only {"id": 0, "label": "0"} a line, in the order of FILE')
    parser.add_argument(
        "--skip-incomplete", action="store_true", help="of several runs: leave out what is not complete"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument("--trust", action="store_true", help="run the model code that the run directory names")
    arguments = parser.parse_args()
    if not arguments.out.parent.is_dir():
        raise InputError(f"{arguments.out}: there is no directory {arguments.out.parent}")
    if arguments.out.is_dir():
        raise InputError(f"{arguments.out}: is a directory; a file to write is needed")

    settle()
    from afqmc.rundir import write_bytes
    from afqmc.scoring import score_together

    run_dirs, of_several = _members(arguments)
    found = score_together(run_dirs, arguments.file, False, "FILE", arguments.device, arguments.trust)
    rows = found.rows()
    if arguments.clue:
        if not all(row["prediction"] for row in rows):
            raise InputError("--clue: a submission needs a label for every pair, and some have no prediction")
        rows = [{"id": row["id"], "label": row["prediction"]} for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    content = text.encode("utf-8", "backslashreplace")  # half a character in an id: JSON's own spelling of it
    write_bytes(arguments.out, zipped(content) if arguments.clue and arguments.out.suffix == ".zip" else content)
    print(f"{arguments.out}: {len(rows)} pairs{of_several}")
    return DONE


def _members(arguments: argparse.Namespace) -> tuple[list[Path], str]:
    """The run directories whose mean is taken, and what is said of it; of one run nothing."""
    from afqmc.comparison.settings import differing
    from afqmc.ensemble import complete, several

    paths = [Path(path) for path in arguments.paths]
    runs = several(arguments.paths)
    for place in paths if runs is None else [*paths, *(run.path for run in runs)]:
        RunDir(place).refuse_detour(arguments.out, "-o")
    if runs is None:
        return paths, ""
    members = complete(runs, arguments.skip_incomplete)
    apart = f", which differ in {', '.join(keys)}" if (keys := differing(members)) else ""
    return [run.path for run in members], f", the mean of {len(members)} runs{apart}"


def zipped(submission: bytes) -> bytes:
    """A zip as the leaderboard takes it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_CLUE_NAME, submission)
    return whole.getvalue()


if __name__ == "__main__":
    sys.exit(exit_code(main))
