"""``python -m afqmc.evaluate RUN_DIR [--data FILE]``: the best weights of a run against a labelled file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from afqmc.cli import DONE, exit_code
from afqmc.process import settle


def main() -> int:
    """Score a file, or the run's own dev split, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m afqmc.evaluate", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="as the run printed it")
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled pairs, in the format of the run's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument("--trust", action="store_true", help="run the model code that the run directory names")
    arguments = parser.parse_args()

    settle()
    from afqmc.console import print_table
    from afqmc.rundir import finite
    from afqmc.scoring import TrainedRun

    run = TrainedRun.open(arguments.run_dir, arguments.device, arguments.trust)
    pairs = run.read(arguments.data, labelled=True, key="--data")
    metrics = finite(dict(run.score(pairs).metrics))
    if arguments.json:
        print(json.dumps({"file": pairs.file, "pairs": len(pairs), **metrics}, ensure_ascii=False))
        return DONE
    rows = [
        (name.replace("_", " "), "undefined" if value is None else f"{value:.6f}") for name, value in metrics.items()
    ]
    print_table(f"{pairs.file}: {len(pairs)} pairs", rows)
    return DONE


if __name__ == "__main__":
    sys.exit(exit_code(main))
