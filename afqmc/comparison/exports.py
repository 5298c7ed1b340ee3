"""The comparison as files: everything as JSON, a row a run as CSV, what the terminal shows as Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afqmc.comparison.report import Comparison, Report
from afqmc.comparison.terminal import columns
from afqmc.comparison.wording import display_name
from afqmc.results.runs import Run
from afqmc.results.settings import MISSING, Setting, format_value
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError, printable
from afqmc.utils.files import write_bytes

_FACTS = ("best_step", "best_epoch", "seconds", "pairs_per_second", "peak_memory_gib", "monitor", "collapsed_onto")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a text that begins with one of these
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MARKUP = re.compile(r"[\\|`<>\[\]*~&$]|(?<!\w)_|_(?!\w)")  # Markdown's signs; an underscore inside a word is none
_LINK = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)  # GitHub makes links of bare addresses


def check(path: Path, flag: str, paths: Sequence[str]) -> None:
    """Whether a file may be written there, before the work of comparing.

    Raises:
        InputError: naming the flag.
    """
    try:
        if not path.parent.is_dir():
            raise InputError(f"{flag} {path}: there is no directory {path.parent}")
        if path.is_dir():
            raise InputError(f"{flag} {path}: is a directory; a file to write is needed")
    except OSError as error:  # a name that no file can have
        raise InputError(f"{flag} {path}: cannot be written: {error.strerror or error}") from error
    for place in paths:
        RunDir(Path(place)).ensure_inside(path, flag)


def reject_overlap(files: Sequence[tuple[Path, str]]) -> None:
    """Refuse two outputs in one file; each comes with its flag.

    Raises:
        InputError: naming both flags.
    """
    taken: dict[Path, str] = {}
    for path, flag in files:
        target = path.resolve()
        if target in taken and (path.is_file() or not path.exists()):  # a pipe or device may take several
            raise InputError(f"{flag} {path}: the same file as {taken[target]}; name another")
        taken[target] = flag


def write(path: Path, text: str, flag: str) -> None:
    """A whole file or none.

    Raises:
        InputError: when it cannot be written, naming the flag.
    """
    try:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))  # half a character: as JSON spells it
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written: {error.strerror or error}") from error


def as_json(report: Report) -> str:
    """All of it."""
    return json.dumps(as_dict(report), ensure_ascii=False, indent=2, default=str) + "\n"


def as_csv(report: Report) -> str:
    """A row a run, whatever became of it; settings by their dotted keys."""
    counted = [(setting.name, run) for setting in report.settings for run in (*setting.runs, *setting.repeats)]
    every = [*counted, *(("", run) for run in report.unfinished)]
    figures = sorted({key for _, run in every for key in run.figures})
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    header: list[object] = [
        "run",
        "status",
        "why",
        "setting",
        *report.keys,
        "seed",
        "fold",
        *figures,
        *_FACTS,
        "sweep",
        "path",
    ]
    for row in (header, *(_cells(report, name, run, figures) for name, run in every)):
        table.writerow(map(_harmless, row))
    return lines.getvalue()


def _cells(report: Report, name: str, run: Run, figures: Sequence[str]) -> list[object]:
    settings = ["" if key not in run.config else format_value(run.config[key]) for key in report.keys]
    facts = [getattr(run, fact) for fact in _FACTS]
    row = [run.name, run.status, run.why, name, *settings, run.seed, run.fold]
    return [*row, *(run.figures.get(key) for key in figures), *facts, run.sweep, str(run.path)]


def _harmless(cell: object) -> object:
    """The cell as a spreadsheet shows it without computing it: a quote before what begins like a formula.

    Numbers stay numbers. Full-width signs count as well: spreadsheets in East Asian locales take them for formulas.
    """
    if cell is None or isinstance(cell, int | float):
        return cell
    text = str(cell)
    start = unicodedata.normalize("NFKC", text.lstrip(" ")[:1])
    is_formula = start.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{printable(text)}" if is_formula else printable(text)


def as_markdown(report: Report) -> str:
    """The table and the sentences."""
    shown = columns(report)
    parts = [f"# Runs by {report.metric}"]
    if report.settings:
        rows = [[column.cell(setting) for column in shown] for setting in report.settings]
        parts.append(_table([column.header for column in shown], rows))
    if report.unfinished:
        rows = [[run.name, run.status, run.why] for run in report.unfinished]
        parts.append("## Without final figures\n\n" + _table(["run", "status", "why"], rows))
    refused = [f"{display_name(setting, report.settings)}: {why}" for setting, why in report.refused]
    sections = {
        "What can be said": [comparison.sentence for comparison in report.comparisons],
        "Not compared": refused,
        "To read this rightly": report.notes,
    }
    parts += [
        f"## {title}\n\n" + "\n".join(f"- {_escaped(line)}" for line in lines)
        for title, lines in sections.items()
        if lines
    ]
    return "\n\n".join(parts) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """The text without effect as Markdown: no markup, cell border, HTML, formula or link."""
    return _LINK.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", printable(text)))


KINDS = {"csv": as_csv, "json": as_json, "md": as_markdown}  # by the flag's name


def as_dict(report: Report) -> dict[str, Any]:
    """For JSON: settings by name, one entry a run."""
    return {
        "metric": report.metric,
        "higher_is_better": report.higher_is_better,
        "examples": None if report.family is None else report.family.examples,
        "settings": [
            {
                **_setting_as_dict(setting, report.metric),
                "folds_together": report.together.get(setting),
                "data_group": report.data_of[setting],
            }
            for setting in report.settings
        ],
        "unfinished": [_run_as_dict(run) for run in report.unfinished],
        "comparisons": [_comparison_as_dict(comparison) for comparison in report.comparisons],
        "refused": [{"setting": setting.name, "why": reason} for setting, reason in report.refused],
        "notes": report.notes,
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
        "collapsed_onto": run.collapsed_onto,
        "best_step": run.best_step,
        "best_epoch": run.best_epoch,
        "seconds": run.seconds,
        "pairs_per_second": run.pairs_per_second,
        "peak_memory_gib": run.peak_memory_gib,
    }


def _comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    split = comparison.mcnemar
    return {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "sentence": comparison.sentence,
        "is_found": comparison.difference.is_found,
        **vars(comparison.difference),
        "mcnemar": None if split is None else vars(split),
    }
