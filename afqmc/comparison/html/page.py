"""The page: what it shows, and how it is put together."""

from __future__ import annotations

import base64
import json
import re
import time
from hashlib import sha256
from importlib import resources
from typing import Any

import afqmc
from afqmc.comparison.html.best_runs import closer
from afqmc.comparison.html.hyperparameters import axes, importance
from afqmc.comparison.html.json_embedding import as_json
from afqmc.comparison.html.learning_curves import curves
from afqmc.comparison.html.provenance import configs, machines
from afqmc.comparison.report import Report
from afqmc.comparison.terminal import Column, columns
from afqmc.comparison.wording import display_name, folds_column, headline, split_of
from afqmc.results.runs import Run
from afqmc.results.translatable import msg, translate

_SCRIPTS = (
    "base",
    "tables",
    "plots",
    "ranking",
    "curves",
    "axes",
    "parallel",
    "sweep",
    "closer",
    "pairs",
    "making",
    "start",
)  # in order


def as_html(report: Report, with_sentences: bool = True) -> str:
    """One page with all it needs in it.

    Args:
        report: What it is of.
        with_sentences: Put in the sentences of the pairs, where the data lie on this machine.
    """
    from plotly.offline import get_plotlyjs

    chinese = json.loads(asset("chinese.json"))
    script = "\n".join(['"use strict";', *(asset(f"{name}.js") for name in _SCRIPTS)])
    scripts = {"plotly": get_plotlyjs(), "script": f"(() => {{\n{script}\n}})();"}
    parts = {
        "policy": _policy(list(scripts.values())),
        "style": asset("page.css"),
        "data": as_json({**_content(report, with_sentences, chinese), "chinese": chinese}),
        **scripts,
    }
    texts = re.split(r"\{\{(\w+)\}\}", asset("page.html"))  # every other one is a part's name
    return "".join(parts[text] if place % 2 else text for place, text in enumerate(texts))


def asset(name: str) -> str:
    """The text of a file of the page."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, and nothing is fetched from or sent to anywhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(one.encode()).digest()).decode()}'" for one in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _content(report: Report, with_sentences: bool, chinese: dict[str, str]) -> dict[str, Any]:
    """Everything shown, as plain data; runs by their number from here on."""
    runs = [run for setting in report.settings for run in setting.runs]
    found = axes(report, runs)
    shares, why = importance(report, runs, found)
    differences = [comparison.difference for comparison in report.comparisons]
    looked_at = closer(report, with_sentences)
    if looked_at and (reason := looked_at["pairs"]["why"]):
        looked_at["pairs"]["why"] = _both(reason, chinese)
    return {
        "version": afqmc.__version__,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "metric": report.metric,
        "split": split_of(report.metric),
        "higher_is_better": report.higher_is_better,
        "said": [_both(comparison.sentence, chinese) for comparison in report.comparisons],
        "headline": _both(headline(display_name(report.compared[0], report.settings), differences), chinese)
        if differences
        else None,
        "found": [comparison.difference.is_found for comparison in report.comparisons],
        "notes": [_both(note, chinese) for note in report.notes],
        "refused": [
            _both(msg("{setting}: {why}", setting=display_name(setting, report.settings), why=reason), chinese)
            for setting, reason in report.refused
        ],
        "unfinished": [[run.name, run.status, _both(run.why, chinese)] for run in report.unfinished],
        "ranking": _ranking(report),
        "runs": [
            _run(run, number, report.metric) for number, setting in enumerate(report.settings) for run in setting.runs
        ],
        "curves": curves(runs),
        "axes": [axis.as_dict() for axis in found],
        "importance": {"shares": shares, "why": _both(why, chinese)},
        "closer": looked_at,
        "configs": configs(runs),
        "machines": machines(runs),
    }


def _both(text: str, chinese: dict[str, str]) -> list[str]:
    return [text, translate(text, chinese)]


def _ranking(report: Report) -> dict[str, Any]:
    # a phone has room for little more than the place and the metric
    shown = sorted(columns(report), key=lambda column: (column.header != "#", column.header != report.metric))
    return {
        "headers": [[column.header, column.is_number, _falls(column, report)] for column in shown],
        "keys": len(report.keys),
        "names": [setting.name for setting in report.settings],
        "rows": [[column.cell(setting) for column in shown] for setting in report.settings],
    }


def _falls(column: Column, report: Report) -> bool:
    """Whether a reader wants the highest first."""
    if column.header in (report.metric, folds_column(split_of(report.metric))):
        return report.higher_is_better
    return column.optional or column.header == "pairs/s"


def _run(run: Run, setting: int, metric: str) -> dict[str, Any]:
    return {
        "name": run.name,
        "setting": setting,
        "seed": None if run.seed is None else str(run.seed),
        "fold": None if run.fold is None else str(run.fold),
        "value": run.figures.get(metric),
        "best": run.best_step,
    }
