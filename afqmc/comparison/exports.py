"""Write the comparison to files: JSON (everything), CSV (one row per run), Markdown (the terminal's output)."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afqmc.comparison.report import Comparison, ComparisonReport
from afqmc.comparison.terminal import columns
from afqmc.comparison.wording import display_name
from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, Setting, format_value
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError, printable
from afqmc.utils.files import write_bytes

_FACTS = (
    "best_step", "best_epoch", "total_seconds", "pairs_per_second", "peak_memory_gib", "monitor", "collapsed_label",
)  # fmt: skip
_MEAN = ("mean", "mean_low", "mean_high")  # of the run's setting, with the 95% interval (empty with folds)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets evaluate texts that begin with one of these
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MARKUP = re.compile(r"[\\|`<>\[\]*~&$]|(?<!\w)_|_(?!\w)")  # Markdown; an underscore within a word is plain text
_LINK = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)  # GitHub turns bare addresses into links


def check_output_path(path: Path, flag: str, inputs: Sequence[str]) -> None:
    """Check that a file can be written, before the runs are compared.

    Args:
        path: The output file.
        flag: The flag that names it, for messages.
        inputs: Paths of the runs to compare.

    Raises:
        InputError: if the path is invalid.
    """
    try:
        if not path.parent.is_dir():
            raise InputError(f"{flag} {path}: there is no directory {path.parent}")
        if path.is_dir():
            raise InputError(f"{flag} {path}: is a directory; a file to write is needed")
    except OSError as error:  # an invalid file name
        raise InputError(f"{flag} {path}: cannot be written: {error.strerror or error}") from error
    for directory in inputs:
        RunDir(Path(directory)).ensure_inside(path, flag)


def reject_overlap(files: Sequence[tuple[Path, str]]) -> None:
    """Check that no two outputs, each given with its flag, are written to the same file.

    Raises:
        InputError: naming both flags.
    """
    flags: dict[Path, str] = {}
    for path, flag in files:
        target = path.resolve()
        if target in flags and (path.is_file() or not path.exists()):  # a pipe or a device may take several outputs
            raise InputError(f"{flag} {path}: the same file as {flags[target]}; name another")
        flags[target] = flag


def write(path: Path, text: str, flag: str) -> None:
    """Write a file atomically.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))  # lone surrogates, as JSON escapes them
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written: {error.strerror or error}") from error


def as_json(report: ComparisonReport) -> str:
    """Return the whole report as JSON."""
    return json.dumps(as_dict(report), ensure_ascii=False, indent=2, default=str) + "\n"


def as_csv(report: ComparisonReport) -> str:
    """Return one row per run, unfinished ones included; settings have a column per varying key."""
    complete = [(setting, run) for setting in report.settings for run in (*setting.runs, *setting.repeats)]
    runs = [*complete, *((None, run) for run in report.unfinished)]
    metrics = sorted({name for _, run in runs for name in run.figures})
    header: list[object] = [
        "run",
        "status",
        "why",
        "setting",
        *report.keys,
        "seed",
        "fold",
        *_MEAN,
        *metrics,
        *_FACTS,
        "sweep",
        "path",
    ]
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    for row in (header, *(_csv_row(report, setting, run, metrics) for setting, run in runs)):
        table.writerow(map(_escape_formula, row))
    return buffer.getvalue()


def _csv_row(report: ComparisonReport, setting: Setting | None, run: Run, metrics: Sequence[str]) -> list[object]:
    values = ["" if key not in run.config else format_value(run.config[key]) for key in report.keys]
    facts = [getattr(run, fact) for fact in _FACTS]
    name, mean = ("", None) if setting is None else (setting.name, setting.mean(report.metric))
    ends = (None if setting is None else report.mean_interval(setting)) or (None, None)
    row = [run.name, run.status, run.why, name, *values, run.seed, run.fold, mean, *ends]
    return [*row, *(run.figures.get(name) for name in metrics), *facts, run.sweep, str(run.path)]


def _escape_formula(cell: object) -> object:
    """Put a quote before a text that a spreadsheet would evaluate as a formula. Numbers stay numbers.

    Full-width signs are escaped too, because spreadsheets in East Asian locales accept them in formulas.
    """
    if cell is None or isinstance(cell, int | float):
        return cell
    text = str(cell)
    start = unicodedata.normalize("NFKC", text.lstrip(" ")[:1])
    is_formula = start.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{printable(text)}" if is_formula else printable(text)


def as_markdown(report: ComparisonReport) -> str:
    """Return the ranking with all settings, the findings and the caveats."""
    shown = columns(report)
    blocks = [f"# Runs by {report.metric}"]
    if report.settings:
        rows = [[column.cell(setting) for column in shown] for setting in report.settings]
        blocks.append(_table([column.header for column in shown], rows))
    if report.unfinished:
        rows = [[run.name, run.status, run.why] for run in report.unfinished]
        blocks.append("## Without final metrics\n\n" + _table(["run", "status", "why"], rows))
    sections = {
        "Findings": [comparison.sentence for comparison in report.comparisons],
        "Changed predictions": [comparison.churn_sentence for comparison in report.comparisons],
        "Published results": report.published,
        "Not compared": [f"{display_name(setting, report.settings)}: {why}" for setting, why in report.incomparable],
        "Caveats": report.caveats,
    }
    blocks += [
        f"## {title}\n\n" + "\n".join(f"- {_escape_markdown(line)}" for line in lines)
        for title, lines in sections.items()
        if lines
    ]
    return "\n\n".join(blocks) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(_escape_markdown, line)) + " |" for line in lines)


def _escape_markdown(text: str) -> str:
    """Escape everything that Markdown interprets: markup, cell borders, HTML, formulas and links."""
    return _LINK.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", printable(text)))


KINDS = {"csv": as_csv, "json": as_json, "md": as_markdown}  # by flag


def as_dict(report: ComparisonReport) -> dict[str, Any]:
    """Return the report as plain data for JSON."""
    return {
        "metric": report.metric,
        "higher_is_better": report.higher_is_better,
        "examples": None if report.tests is None else report.tests.examples,
        "settings": [
            {
                **_setting_as_dict(setting, report.metric),
                "interval": report.interval(setting),
                "folds_together": report.folds_metric.get(setting),
                "data_group": report.data_index[setting],
            }
            for setting in report.settings
        ],
        "unfinished": [_run_as_dict(run) for run in report.unfinished],
        "comparisons": [_comparison_as_dict(comparison) for comparison in report.comparisons],
        "refused": [{"setting": setting.name, "why": reason} for setting, reason in report.incomparable],
        "standings": [
            {"setting": setting.name, **vars(standing)}
            for setting, standing in zip(report.compared, report.standings, strict=False)
        ],
        "published": [*report.published],
        "notes": report.caveats,
    }


def _setting_as_dict(setting: Setting, metric: str) -> dict[str, Any]:
    return {
        "name": setting.name,
        "values": {key: value for key, value in setting.values.items() if value is not MISSING},
        "mean": setting.mean(metric),
        "sd": setting.deviation(metric),
        "n": len(setting.figures(metric)),
        "runs": [_run_as_dict(run) for run in setting.runs],
        "repeats": [_run_as_dict(run) for run in setting.repeats],
    }


def _run_as_dict(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "sweep": run.sweep,
        "status": run.status,
        "why": run.why,
        "seed": run.seed,
        "fold": run.fold,
        "figures": run.figures,
        "monitor": run.monitor,
        "collapsed_label": run.collapsed_label,
        "best_step": run.best_step,
        "best_epoch": run.best_epoch,
        "total_seconds": run.total_seconds,
        "pairs_per_second": run.pairs_per_second,
        "peak_memory_gib": run.peak_memory_gib,
    }


def _comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    test = comparison.mcnemar
    return {
        "first": comparison.reference.name,
        "second": comparison.other.name,
        "sentence": comparison.sentence,
        "is_found": comparison.difference.significant,
        **vars(comparison.difference),
        "mcnemar": None if test is None else vars(test),
        "churn": vars(comparison.churn),
    }
