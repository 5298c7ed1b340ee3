"""Time to read and tokenise a large file of JSON lines, with this checkout and others in turns.

    python -m benchmarks.reading [--lines 1000000] [--rounds 3] [--against CHECKOUT ...] [--tokenise]

Prints user CPU time and wall time of a fresh process per round, and the ratios of the medians.
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

_MEASURED_CODE = """
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
    files = {"train_file": str(path), "dev_file": str(path)}
    data = load_dataset(DatasetConfig(**files, max_train_samples=2000, max_dev_samples=10))
    tokenizer = build_tokenizer(compose(["experiment=quickstart"]).model, lambda: all_sentences(data))
start, cpu = time.perf_counter(), os.times()
data = load_dataset(config)
if tokenise:
    PairTokenizer(tokenizer, 128).encode(data.train)
used = os.times()
print(used.user - cpu.user, time.perf_counter() - start)
"""


def write(path: Path, lines: int) -> None:
    """Write ``lines`` pairs, drawn from the embedded ones, which are about as long as those of AFQMC."""
    from afqmc.data.sample import sample_files

    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()]
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for index in range(lines):
            row = {**rng.choice(rows), "id": index}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def seconds(checkout: Path, file: Path, tokenise: bool) -> tuple[float, float]:
    """Return user CPU time and wall time of one process that runs a checkout's code."""
    process = subprocess.run(
        [sys.executable, "-c", _MEASURED_CODE, str(file), str(tokenise)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        capture_output=True,
        text=True,
    )
    user, wall = map(float, process.stdout.split()[-2:])
    return user, wall


def main() -> None:
    """Measure in turns and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    parser.add_argument("--tokenise", action="store_true", help="time the tokenizer too")
    arguments = parser.parse_args()
    checkouts = [Path(__file__).parents[1], *(path.resolve() for path in arguments.against)]
    times: dict[Path, list[tuple[float, float]]] = {path: [] for path in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write(file, arguments.lines)
        for index in range(arguments.rounds):
            for path in checkouts if index % 2 else checkouts[::-1]:
                times[path].append(seconds(path, file, arguments.tokenise))
                print(f"{path}: user {times[path][-1][0]:.2f} s, wall {times[path][-1][1]:.2f} s", flush=True)
    medians = {path: [statistics.median(column) for column in zip(*rows, strict=True)] for path, rows in times.items()}
    for path in arguments.against:
        user, wall = (new / old for new, old in zip(medians[checkouts[0]], medians[path.resolve()], strict=True))
        print(f"this checkout takes {user:.3f} of the user time and {wall:.3f} of the wall time of {path}")


if __name__ == "__main__":
    main()
