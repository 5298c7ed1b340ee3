"""Tables and a plot from a raw file: ``python -m benchmarks.report RAW.jsonl`` writes RAW.md and RAW.png beside it."""

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
Every contestant loads the same random weights and trains on the first pairs of AFQMC's train split, two passes in a
process of its own: the first warms up, the second is timed, from the end of the last warm-up step to the end of the
last step. Evaluation is one pass over pairs of dev from their strings, tokenising included, after a pass over as many
others. Ratios are taken within each round and the median of them is given; spread is the lowest and the highest of the
rounds; peak memory is the process's resident set until then (on a GPU, the host's). A part of the data leaves less to
gain from batching by length than all of it does.
"""
_ABOUT = {
    "tutorial": "float32, each batch tokenised as it comes, AdamW as PyTorch has it by default",
    "accelerate-example": "tokenised beforehand by `datasets`, bf16 autocast, AdamW as PyTorch has it by default",
    "hf-trainer": "group_by_length (50 batches sorted together, as on the whole data), bf16, fused AdamW, no logging",
    "lightning": "bf16-mixed, fused AdamW, random batches, no bar, no logger",
    "cross-encoder": "CrossEncoderTrainer: bf16, fused AdamW, random batches; predict: sorted, weights in bf16",
    "afqmc": "`python -m afqmc.run` with its defaults; evaluation as `afqmc.evaluate` does it, in the process that "
    "made the run directory by a step of training, which its peak memory counts too",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """A median with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True)
class Line:
    """What a contestant did in one table."""

    name: str
    rate: Spread
    ratio: Spread | None  # to the baseline, round by round; None where that was not run
    peak_mib: float
    rows: list[Row]


def read(raw: Path) -> list[Row]:
    """The rows of a raw file."""
    return [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]


def baseline(names: Iterable[str]) -> str:
    """What ratios are to: the tutorial's loop, or ours as it is where only parts of it are compared."""
    return BASELINE if BASELINE in names else OURS


def lines(rows: list[Row]) -> list[Line]:
    """The rows of one table, by contestant in the order of their first appearance."""
    good = [row for row in rows if "error" not in row]
    against = baseline(row["contestant"] for row in good)
    base = {row["round"]: row["pairs_per_second"] for row in good if row["contestant"] == against}
    found = []
    for name in dict.fromkeys(row["contestant"] for row in good):
        own = [row for row in good if row["contestant"] == name]
        ratios = [row["pairs_per_second"] / base[row["round"]] for row in own if row["round"] in base]
        rate = Spread.of(row["pairs_per_second"] for row in own)
        peak = statistics.median(row["peak_mib"] for row in own)
        found.append(Line(name, rate, Spread.of(ratios) if ratios else None, peak, own))
    return found


def tables(rows: list[Row]) -> dict[tuple[str, str, int | None], list[Line]]:
    """The lines of each table of training and evaluation, by (kind, model, batch size); a model's tables together."""
    keys = list(dict.fromkeys(key(row) for row in rows if row["kind"] in ("train", "eval")))
    models = [model for _, model, _ in keys]
    keys.sort(key=lambda wanted: models.index(wanted[1]))
    return {wanted: lines([row for row in rows if key(row) == wanted]) for wanted in keys}


def key(row: Row) -> tuple[str, str, int | None]:
    """The table that a row belongs to."""
    return row["kind"], row.get("model", ""), row.get("batch_size") if row["kind"] == "train" else None


def floors(rows: list[Row]) -> dict[str, Floor]:
    """The floor of each model."""
    names = Floor.__dataclass_fields__
    found = [row for row in rows if row["kind"] == "floor" and "error" not in row]
    return {row["model"]: Floor(**{name: row[name] for name in names}) for row in found}


def title(wanted: tuple[str, str, int | None]) -> str:
    """A table's heading."""
    kind, model, batch_size = wanted
    size = {"base": "BERT-base (12 x 768)", "small": "small BERT (4 x 312)"}.get(model, model)
    return f"Training, {size}, batch {batch_size}" if kind == "train" else f"Evaluation, {size}"


def rate_table(found: list[Line], floor: Floor | None) -> str:
    """Median, spread, ratio, memory, and the share of the floor where there is one."""
    head = ["", "pairs/s", "spread", f"ratio to {baseline(line.name for line in found)}", "spread", "peak memory, MiB"]
    body = []
    for line in found:
        ratio = ["", ""] if line.ratio is None else [f"**{line.ratio.median:.2f}**", span(line.ratio, 2)]
        share = [] if floor is None else [f"{floor.share(line.rate.median):.0%}"]
        body.append([line.name, figure(line.rate.median), span(line.rate), *ratio, f"{line.peak_mib:.0f}", *share])
    return markdown([*head, "share of the floor"] if floor else head, body)


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(spread: Spread, digits: int | None = None) -> str:
    """``low .. high``."""
    low, high = (figure(v) if digits is None else f"{v:.{digits}f}" for v in (spread.low, spread.high))
    return f"{low} .. {high}"


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A table, first column to the left, figures to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *body]) + "\n"


def seconds_table(rows: list[Row], value: str) -> str:
    """Median and spread of seconds, by what was run."""
    body = []
    for name in dict.fromkeys(row["contestant"] for row in rows):
        spread = Spread.of(row[value] for row in rows if row["contestant"] == name)
        body.append([name, f"{spread.median:.2f}", span(spread, 2)])
    return markdown(["", "seconds", "spread"], body)


def start_rows(rows: list[Row]) -> list[Row]:
    """Rows of starts, each contestant's second one in a round under a name of its own."""
    found, seen = [], set()
    for row in rows:
        if row["kind"] == "start" and "error" not in row:
            again = (row["contestant"], row["round"]) in seen
            seen.add((row["contestant"], row["round"]))
            found.append(row | {"contestant": f"{row['contestant']}, the same data again"} if again else row)
    return found


def sections(rows: list[Row]) -> Iterable[str]:
    """The report, piece by piece."""
    limits = floors(rows)
    for wanted, found in tables(rows).items():
        yield f"## {title(wanted)}\n\n" + rate_table(found, limits.get(wanted[1]) if wanted[0] == "train" else None)
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
        told = [
            f"- {row['kind']} {row['model']} {row['contestant']}: `{row['error'].splitlines()[-1]}`" for row in failed
        ]
        yield "## Not measured\n\n" + "\n".join(told) + "\n"


def floor_table(limits: dict[str, Floor]) -> str:
    """What there is to compute, and the time it takes here at the least."""
    head = ["", "MFLOP a token", "tokens a pair", "matmul fp32, GFLOP/s", "bf16", "pairs/s", f"{EPOCHS} epochs, s"]
    body = [
        [
            name, f"{floor.flop_per_token / 1e6:.0f}", f"{floor.tokens_per_pair:.1f}", f"{floor.gflops_fp32:.0f}",
            f"{floor.gflops_bf16:.0f}", figure(floor.pairs_per_second), figure(floor.seconds()),
        ]
        for name, floor in limits.items()
    ]  # fmt: skip
    about = "The model's arithmetic on unpadded tokens, at this machine's matmul rate (`benchmarks/floor.py`).\n\n"
    return about + markdown(head, body)


def sweep_table(rows: list[Row]) -> str:
    """Pairs a second of all runs together, start-up included."""
    first = rows[0]
    sizes = f"{first['runs']} runs of {first['pairs']} pairs, small BERT, batch {first['batch_size']}"
    body = []
    for name in dict.fromkeys(row["contestant"] for row in rows):
        own = [row for row in rows if row["contestant"] == name]
        rate, seconds = (Spread.of(row[value] for row in own) for value in ("pairs_per_second", "seconds"))
        body.append([name, figure(rate.median), span(rate), f"{seconds.median:.1f}"])
    return f"{sizes}; start-up included.\n\n" + markdown(["", "pairs/s in all", "spread", "seconds"], body)


def heading(machine: Row, rows: list[Row]) -> str:
    """The machine and how it was measured."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    set_to = "".join(f", {key}={value}" for key, value in machine["environment"].items())
    rounds = 1 + max((row["round"] for row in rows if row["kind"] in ("train", "eval")), default=0)
    return (
        f"# Speed, {machine['date']}\n\n"
        f"- {gpu}{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['memory_gib']} GiB; load before the start {machine['load']}\n"
        f"- {machine['system']}, Python {machine['python']}{set_to}; {packages}\n"
        f"- commit {machine['commit']}; rounds: {rounds}; `{machine['command']}`\n\n{_NOTES}\n"
        + "".join(f"- {name}: {about}\n" for name, about in _ABOUT.items())
    )


def write(raw: Path) -> Path:
    """Make the report and, if there is something to draw, the plot; returns the report's path."""
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
