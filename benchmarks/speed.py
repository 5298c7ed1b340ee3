"""Measure them all, one process at a time, and write the report.

    python -m benchmarks.speed --data DIR --model-dir DIR [--rounds 3] [--what train,eval,start,sweep,floor] [--quick]

Each measurement is a fresh process, started when the one before has ended; contestants take turns, and another one
goes first each round, so that a machine that slows down slows all of them. Every result is appended to
results/<date>-<machine>.jsonl as it comes; ``python -m benchmarks.report`` makes the tables from that file again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, PART
from benchmarks.contestants.afqmc_without import WITHOUT
from benchmarks.machine import describe_machine, slug
from benchmarks.plan import KINDS, Measurement, Plan
from benchmarks.processes import Bench

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the plan; the exit code says whether everything could be measured."""
    options = parse()
    machine = describe_machine()
    raw = options.out or RESULTS / f"{date.today()}-{options.machine or slug(machine)}.jsonl"
    if raw.exists():
        sys.exit(f"{raw}: exists; give another --out or --machine")
    raw.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.speed", *without_paths(sys.argv[1:])])
    append(raw, {"kind": "machine", "date": str(date.today()), "command": command, **machine})
    with tempfile.TemporaryDirectory(prefix="afqmc-bench-") as scratch:
        failed = run(plan_of(options), Bench(options.data, options.model_dir, Path(scratch)), raw)
    from benchmarks.report import write

    print(f"wrote {write(raw)}")
    return 1 if failed else 0


def run(plan: Plan, bench: Bench, raw: Path) -> int:
    """Measure one after another; returns how many failed."""
    measurements = list(plan.measurements())
    failed, since = 0, time.monotonic()
    for number, measurement in enumerate(measurements, 1):
        row = {**measurement.label, **measurement.sizes, **bench.measure(measurement)}
        append(raw, row)
        failed += "error" in row
        print(
            f"{time.monotonic() - since:6.0f} s  {number}/{len(measurements)}  {in_short(measurement, row)}", flush=True
        )
    return failed


def in_short(measurement: Measurement, row: dict[str, Any]) -> str:
    """A line for whoever watches."""
    name = " ".join(str(value) for value in measurement.label.values() if value != "")
    if "error" in row:
        return f"{name}: FAILED\n{row['error']}"
    if "pairs_per_second" in row:
        return f"{name}: {row['pairs_per_second']:.1f} pairs/s"
    seconds = row.get("first_step_seconds", row.get("seconds"))
    return name if seconds is None else f"{name}: {seconds:.2f} s"


def append(raw: Path, row: dict[str, Any]) -> None:
    """One more line."""
    with raw.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def plan_of(options: argparse.Namespace) -> Plan:
    """The options as a plan."""
    return Plan(
        options.what, options.models, options.batch_sizes, options.contestants, options.rounds, options.quick,
        options.pairs,
    )  # fmt: skip


def without_paths(arguments: list[str]) -> list[str]:
    """A command line for the report: where somebody keeps the files is nobody's business."""
    hidden, found = {"--data": "DIR", "--model-dir": "DIR", "--out": "FILE"}, []
    for number, argument in enumerate(arguments):
        name, equals, _ = argument.partition("=")
        before = arguments[number - 1] if number else ""
        found.append(f"{name}={hidden[name]}" if equals and name in hidden else hidden.get(before, argument))
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description="afqmc beside other ways to fine-tune on sentence pairs."
    )

    def several(of: list[str]) -> Any:
        def read(text: str) -> list[str]:
            names = text.split(",")
            if wrong := [name for name in names if name not in of]:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not among {', '.join(of)}")
            return names

        return read

    data = os.environ.get("AFQMC_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="AFQMC; default $AFQMC_DATA")
    parser.add_argument("--model-dir", type=Path, required=True, help="config and tokenizer of bert-base-chinese")
    parser.add_argument("--what", type=several(list(KINDS)), default=list(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--models", type=several(["base", "small"]), default=["base", "small"], help="base,small")
    parser.add_argument("--batch-sizes", type=lambda text: [int(n) for n in text.split(",")], default=[4, 32])
    names = list(CONTESTANTS)
    less = [f"{PART}{part}" for part in WITHOUT]
    about = f"of {','.join(names + less)}; default the first {len(names)}"
    parser.add_argument("--contestants", type=several(names + less), default=names, help=about)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="training pairs of a measurement; default by model")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the pairs: whether it works, no figures")
    parser.add_argument("--machine", help="what the result file is called after the date; default by processor")
    parser.add_argument("--out", type=Path, help="the raw file (.jsonl); the report goes beside it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
