"""Report of a raw file: ``python -m benchmarks.report RAW.jsonl`` writes RAW.md and RAW.png in the same directory."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.floor import EPOCHS, Floor

BASELINE, OURS = "tutorial", "afqmc"
_NOTES = """\
Every contestant loads the same random weights and trains on the first pairs of AFQMC's train split, in a fresh process.
Of two passes, the first is a warm-up. The second is timed, from the end of the last warm-up step to the end of the last
step. Evaluation is one pass over the strings of dev pairs, tokenising included, after a warm-up pass over as many other
pairs. Ratios are computed within each round; the table shows their median. Spread is the lowest and the highest round.
Peak memory is the peak resident set of the process (on a GPU, that of the host). With only a part of the data, batching
by length gains less than with all of it.
"""
_ABOUT = {
    "tutorial": "float32, each batch tokenised when it is needed, PyTorch's default AdamW",
    "accelerate-example": "tokenised in advance with `datasets`, bf16 autocast, PyTorch's default AdamW",
    "hf-trainer": "group_by_length (50 batches sorted at a time, as on all data), bf16, fused AdamW, no logging",
    "lightning": "bf16-mixed, fused AdamW, random batches, no progress bar, no logger",
    "cross-encoder": "CrossEncoderTrainer: bf16, fused AdamW, random batches; predict: sorted, weights in bf16",
    "afqmc": "`python -m afqmc.run` with its defaults. Evaluation as in `afqmc.evaluate`, in the process that "
    "created the run directory with one training step; its peak memory includes that step",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Iterable[float]) -> Spread:
        """Return the spread of one or more values."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True)
class Line:
    """The results of one contestant in one table."""

    name: str
    rate: Spread
    ratio: Spread | None  # to the baseline, per round; None if the baseline was not run
    peak_mib: float
    rows: list[Row]


def read(raw: Path) -> list[Row]:
    """Read the rows of a raw file."""
    return [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]


def baseline(names: Iterable[str]) -> str:
    """Return the contestant that ratios refer to: the tutorial's loop, or afqmc if only its parts are compared."""
    return BASELINE if BASELINE in names else OURS


def lines(rows: list[Row]) -> list[Line]:
    """Return the lines of one table, in the order in which the contestants first appear."""
    good = [row for row in rows if "error" not in row]
    baseline_name = baseline(row["contestant"] for row in good)
    base = {row["round"]: row["pairs_per_second"] for row in good if row["contestant"] == baseline_name}
    result = []
    for name in dict.fromkeys(row["contestant"] for row in good):
        own = [row for row in good if row["contestant"] == name]
        ratios = [row["pairs_per_second"] / base[row["round"]] for row in own if row["round"] in base]
        rate = Spread.from_values(row["pairs_per_second"] for row in own)
        peak = statistics.median(row["peak_mib"] for row in own)
        result.append(Line(name, rate, Spread.from_values(ratios) if ratios else None, peak, own))
    return result


def tables(rows: list[Row]) -> dict[tuple[str, str, int | None], list[Line]]:
    """Return the lines of all tables of training and evaluation by (kind, model, batch size), grouped by model."""
    keys = list(dict.fromkeys(key(row) for row in rows if row["kind"] in ("train", "eval")))
    models = [model for _, model, _ in keys]
    keys.sort(key=lambda table: models.index(table[1]))
    return {table: lines([row for row in rows if key(row) == table]) for table in keys}


def key(row: Row) -> tuple[str, str, int | None]:
    """Return the key of the table that a row belongs to."""
    return row["kind"], row.get("model", ""), row.get("batch_size") if row["kind"] == "train" else None


def floors(rows: list[Row]) -> dict[str, Floor]:
    """Return the floor of each model."""
    names = Floor.__dataclass_fields__
    floor_rows = [row for row in rows if row["kind"] == "floor" and "error" not in row]
    return {row["model"]: Floor(**{name: row[name] for name in names}) for row in floor_rows}


def title(table: tuple[str, str, int | None]) -> str:
    """Return the heading of a table."""
    kind, model, batch_size = table
    size = {"base": "BERT-base (12 x 768)", "small": "small BERT (4 x 312)"}.get(model, model)
    return f"Training, {size}, batch {batch_size}" if kind == "train" else f"Evaluation, {size}"


def rate_table(table_lines: list[Line], floor: Floor | None) -> str:
    """Return a table of rate, ratio and memory, with the share of the floor if it was measured."""
    ratio_head = f"ratio to {baseline(line.name for line in table_lines)}"
    head = ["", "pairs/s", "spread", ratio_head, "spread", "peak memory, MiB"]
    body = []
    for line in table_lines:
        ratio = ["", ""] if line.ratio is None else [f"**{line.ratio.median:.2f}**", span(line.ratio, 2)]
        share = [] if floor is None else [f"{floor.share(line.rate.median):.0%}"]
        body.append([line.name, figure(line.rate.median), span(line.rate), *ratio, f"{line.peak_mib:.0f}", *share])
    return markdown([*head, "share of the floor"] if floor else head, body)


def figure(value: float) -> str:
    """Format with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(spread: Spread, digits: int | None = None) -> str:
    """Format as ``low .. high``."""
    low, high = (figure(v) if digits is None else f"{v:.{digits}f}" for v in (spread.low, spread.high))
    return f"{low} .. {high}"


def markdown(head: list[str], body: list[list[str]]) -> str:
    """Return a Markdown table, the first column left-aligned and the others right-aligned."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *body]) + "\n"


def seconds_table(rows: list[Row], value: str) -> str:
    """Return a table of median and spread of seconds per contestant."""
    body = []
    for name in dict.fromkeys(row["contestant"] for row in rows):
        spread = Spread.from_values(row[value] for row in rows if row["contestant"] == name)
        body.append([name, f"{spread.median:.2f}", span(spread, 2)])
    return markdown(["", "seconds", "spread"], body)


def start_rows(rows: list[Row]) -> list[Row]:
    """Return the rows of starts; a contestant's second start in a round is renamed."""
    starts, seen = [], set()
    for row in rows:
        if row["kind"] == "start" and "error" not in row:
            again = (row["contestant"], row["round"]) in seen
            seen.add((row["contestant"], row["round"]))
            starts.append(row | {"contestant": f"{row['contestant']}, warm cache"} if again else row)
    return starts


def sections(rows: list[Row]) -> Iterable[str]:
    """Yield the sections of the report."""
    limits = floors(rows)
    for table, table_lines in tables(rows).items():
        floor = limits.get(table[1]) if table[0] == "train" else None
        yield f"## {title(table)}\n\n" + rate_table(table_lines, floor)
    if limits:
        yield "## Floor\n\n" + floor_table(limits)
    if starts := start_rows(rows):
        about = (
            f"From the start of the process to the end of the first step: small BERT, {starts[0]['pairs']} pairs.\n\n"
        )
        yield "## Start\n\n" + about + seconds_table(starts, "first_step_seconds")
    if commands := [row for row in rows if row["kind"] == "command" and "error" not in row]:
        yield "## `python -m afqmc.run` without training\n\n" + seconds_table(commands, "seconds")
    if sweeps := [row for row in rows if row["kind"] == "sweep" and "error" not in row]:
        yield "## Sweep\n\n" + sweep_table(sweeps)
    if failed := [row for row in rows if "error" in row]:
        errors = [
            f"- {row['kind']} {row['model']} {row['contestant']}: `{row['error'].splitlines()[-1]}`" for row in failed
        ]
        yield "## Not measured\n\n" + "\n".join(errors) + "\n"


def floor_table(limits: dict[str, Floor]) -> str:
    """Return a table of the floors: FLOP, rates and least times."""
    head = ["", "MFLOP per token", "tokens per pair", "matmul fp32, GFLOP/s", "bf16", "pairs/s", f"{EPOCHS} epochs, s"]
    body = [
        [
            name, f"{floor.flop_per_token / 1e6:.0f}", f"{floor.tokens_per_pair:.1f}", f"{floor.gflops_fp32:.0f}",
            f"{floor.gflops_bf16:.0f}", figure(floor.pairs_per_second), figure(floor.seconds()),
        ]
        for name, floor in limits.items()
    ]  # fmt: skip
    about = "FLOP of the model on unpadded tokens, at the matmul rate of this machine (`benchmarks/floor.py`).\n\n"
    return about + markdown(head, body)


def sweep_table(rows: list[Row]) -> str:
    """Return a table of pairs per second of all runs together, start-up included."""
    first = rows[0]
    sizes = f"{first['runs']} runs of {first['pairs']} pairs, small BERT, batch {first['batch_size']}"
    body = []
    for name in dict.fromkeys(row["contestant"] for row in rows):
        own = [row for row in rows if row["contestant"] == name]
        rate, seconds = (Spread.from_values(row[value] for row in own) for value in ("pairs_per_second", "seconds"))
        body.append([name, figure(rate.median), span(rate), f"{seconds.median:.1f}"])
    return f"{sizes}; start-up included.\n\n" + markdown(["", "total pairs/s", "spread", "seconds"], body)


def heading(machine: Row, rows: list[Row]) -> str:
    """Return the head of the report: the machine, versions, command and notes."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    variables = "".join(f", {key}={value}" for key, value in machine["environment"].items())
    rounds = 1 + max((row["round"] for row in rows if row["kind"] in ("train", "eval")), default=0)
    return (
        f"# Speed, {machine['date']}\n\n"
        f"- {gpu}{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['memory_gib']} GiB; load before the start {machine['load']}\n"
        f"- {machine['system']}, Python {machine['python']}{variables}; {packages}\n"
        f"- commit {machine['commit']}; rounds: {rounds}; `{machine['command']}`\n\n{_NOTES}\n"
        + "".join(f"- {name}: {about}\n" for name, about in _ABOUT.items())
    )


def write(raw: Path) -> Path:
    """Write the report and, if there are ratios, the plot. Return the path of the report."""
    from benchmarks.plot import draw

    rows = read(raw)
    machine = next(row for row in rows if row["kind"] == "machine")
    text = [heading(machine, rows)]
    if draw(tables(rows), raw.with_suffix(".png")):
        text.append(f"![Ratios to the tutorial's loop]({raw.with_suffix('.png').name})\n")
    report = raw.with_suffix(".md")
    report.write_text("\n".join([*text, *sections(rows)]), encoding="utf-8")
    return report


if __name__ == "__main__":
    print(f"wrote {write(Path(sys.argv[1]))}")
