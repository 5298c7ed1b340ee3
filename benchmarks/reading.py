"""What reading and tokenising a large file costs: the same JSON lines, from this checkout and from others, in turns.

    python -m benchmarks.reading [--lines 1000000] [--rounds 3] [--against CHECKOUT ...] [--tokenise]

Prints seconds of user CPU time and of wall time in a process of its own for each round, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURED = """
import os, sys, time
from pathlib import Path
from afqmc.data.tokenization import PairTokenizer
from afqmc.config import compose
from afqmc.data.config import DatasetConfig
from afqmc.data.sources import DataFile
from afqmc.data.parsing import read_pairs
from afqmc.data.loading import all_sentences, load_dataset
from afqmc.models.loading import build_tokenizer

path, tokenise = Path(sys.argv[1]), sys.argv[2] == "True"
config = DatasetConfig(train_file=str(path), dev_file=str(path), max_dev_samples=1000)
if tokenise:
    data = load_dataset(DatasetConfig(train_file=str(path), dev_file=str(path), max_train_samples=2000, max_dev_samples=10))
    tokenizer = build_tokenizer(compose(["experiment=quickstart"]).model, lambda: all_sentences(data))
since, cpu = time.perf_counter(), os.times()
data = load_dataset(config)
if tokenise:
    PairTokenizer(tokenizer, 128).encode(data.train)
used = os.times()
print(used.user - cpu.user, time.perf_counter() - since)
"""


def write(path: Path, lines: int) -> None:
    """Chinese pairs of about AFQMC's length, from the embedded ones."""
    from afqmc.data.sample import sample_files

    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()]
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(lines):
            row = {**draw.choice(rows), "id": number}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def seconds(checkout: Path, file: Path, tokenise: bool) -> tuple[float, float]:
    """User CPU time and wall time of one process that runs a checkout's code."""
    told = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(file), str(tokenise)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        capture_output=True,
        text=True,
    )
    user, wall = map(float, told.stdout.split()[-2:])
    return user, wall


def main() -> None:
    """Measure in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    parser.add_argument("--tokenise", action="store_true", help="time the tokenizer too")
    arguments = parser.parse_args()
    checkouts = [Path(__file__).parents[1], *(path.resolve() for path in arguments.against)]
    taken: dict[Path, list[tuple[float, float]]] = {path: [] for path in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write(file, arguments.lines)
        for number in range(arguments.rounds):
            for path in checkouts if number % 2 else checkouts[::-1]:
                taken[path].append(seconds(path, file, arguments.tokenise))
                print(f"{path}: user {taken[path][-1][0]:.2f} s, wall {taken[path][-1][1]:.2f} s", flush=True)
    medians = {path: [statistics.median(column) for column in zip(*rows, strict=True)] for path, rows in taken.items()}
    for path in arguments.against:
        user, wall = (new / old for new, old in zip(medians[checkouts[0]], medians[path.resolve()], strict=True))
        print(f"this checkout takes {user:.3f} of the user time and {wall:.3f} of the wall time of {path}")


if __name__ == "__main__":
    main()
