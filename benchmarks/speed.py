"""Run all measurements, one process at a time, and write the report.

    python -m benchmarks.speed --data DIR --model-dir DIR [--rounds 3] [--what train,eval,start,sweep,floor] [--quick]
    python -m benchmarks.speed --against COMMIT        # two commits of this repository, see benchmarks/against.py

Each measurement is a fresh process, started when the previous one has ended. Contestants take turns, and another one is
first in each round, so that a slow phase of the machine affects all of them. Results are appended to
results/<date>-<machine>.jsonl at once; ``python -m benchmarks.report`` regenerates the tables from that file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import against
from benchmarks.contestants import CONTESTANTS, PART
from benchmarks.contestants.afqmc_without import WITHOUT
from benchmarks.machine import describe_machine, slug
from benchmarks.plan import KINDS, Measurement, Plan
from benchmarks.processes import Bench

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the plan, and return the exit code: 1 if a measurement failed."""
    if any(argument.partition("=")[0] == "--against" for argument in sys.argv[1:]):
        return against.main()
    options = parse_arguments()
    machine = describe_machine()
    raw = options.out or RESULTS / f"{date.today()}-{options.machine or slug(machine)}.jsonl"
    if raw.exists():
        sys.exit(f"{raw}: exists; give another --out or --machine")
    raw.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.speed", *hide_paths(sys.argv[1:])])
    append(raw, {"kind": "machine", "date": str(date.today()), "command": command, **machine})
    with tempfile.TemporaryDirectory(prefix="afqmc-bench-") as scratch:
        failed = run(build_plan(options), Bench(options.data, options.model_dir, Path(scratch)), raw)
    from benchmarks.report import write

    print(f"wrote {write(raw)}")
    return 1 if failed else 0


def run(plan: Plan, bench: Bench, raw: Path) -> int:
    """Run the measurements one after another, and return the number of failures."""
    measurements = list(plan.measurements())
    failed, start = 0, time.monotonic()
    for index, measurement in enumerate(measurements, 1):
        row = {**measurement.label, **measurement.sizes, **bench.measure(measurement)}
        append(raw, row)
        failed += "error" in row
        progress = f"{time.monotonic() - start:6.0f} s  {index}/{len(measurements)}"
        print(f"{progress}  {summarize(measurement, row)}", flush=True)
    return failed


def summarize(measurement: Measurement, row: dict[str, Any]) -> str:
    """Return a line for the terminal."""
    name = " ".join(str(value) for value in measurement.label.values() if value != "")
    if "error" in row:
        return f"{name}: FAILED\n{row['error']}"
    if "pairs_per_second" in row:
        return f"{name}: {row['pairs_per_second']:.1f} pairs/s"
    seconds = row.get("first_step_seconds", row.get("seconds"))
    return name if seconds is None else f"{name}: {seconds:.2f} s"


def append(raw: Path, row: dict[str, Any]) -> None:
    """Append a row to the raw file."""
    with raw.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def build_plan(options: argparse.Namespace) -> Plan:
    """Return the plan that the options describe."""
    return Plan(
        options.what, options.models, options.batch_sizes, options.contestants, options.rounds, options.quick,
        options.pairs,
    )  # fmt: skip


def hide_paths(arguments: list[str]) -> list[str]:
    """Return the command line for the report, with placeholders for the paths of this machine."""
    placeholders, hidden = {"--data": "DIR", "--model-dir": "DIR", "--out": "FILE"}, []
    for previous, argument in itertools.pairwise(["", *arguments]):
        name, equals, _ = argument.partition("=")
        has_path = equals and name in placeholders
        hidden.append(f"{name}={placeholders[name]}" if has_path else placeholders.get(previous, argument))
    return hidden


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Compare the speed of afqmc with other ways to fine-tune on sentence pairs.",
    )

    def list_of(allowed: list[str]) -> Any:
        def parse_list(text: str) -> list[str]:
            names = text.split(",")
            if invalid := [name for name in names if name not in allowed]:
                raise argparse.ArgumentTypeError(f"{', '.join(invalid)}: invalid; allowed: {', '.join(allowed)}")
            return names

        return parse_list

    data = os.environ.get("AFQMC_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="AFQMC; default $AFQMC_DATA")
    parser.add_argument("--model-dir", type=Path, required=True, help="config and tokenizer of bert-base-chinese")
    parser.add_argument("--what", type=list_of(list(KINDS)), default=list(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--models", type=list_of(["base", "small"]), default=["base", "small"], help="base,small")
    parser.add_argument("--batch-sizes", type=lambda text: [int(n) for n in text.split(",")], default=[4, 32])
    names = list(CONTESTANTS)
    variants = [f"{PART}{part}" for part in WITHOUT]
    about = f"of {','.join(names + variants)}; default: the first {len(names)}"
    parser.add_argument("--contestants", type=list_of(names + variants), default=names, help=about)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="training pairs per measurement; default by model")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the pairs, to test that everything runs")
    parser.add_argument("--machine", help="name in the result file, after the date; default: the processor")
    parser.add_argument("--out", type=Path, help="the raw file (.jsonl); the report is written to the same directory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
