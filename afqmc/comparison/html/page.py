"""Build the page from the report and the assets."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib import resources
from typing import Any

import afqmc
from afqmc.comparison.html.best_runs import best_runs
from afqmc.comparison.html.hyperparameters import axes, importance
from afqmc.comparison.html.json_embedding import embed_json
from afqmc.comparison.html.learning_curves import curves
from afqmc.comparison.html.provenance import configs, machines
from afqmc.comparison.html.standing_plots import cost_data, standing_data, trial_data
from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.terminal import INTERVAL, Column, columns
from afqmc.comparison.wording import display_name, folds_column, split_of
from afqmc.results.runs import Run
from afqmc.utils.language import catalogue, chinese, msg

_SCRIPTS = (  # in the order of their dependencies
    "base",
    "tables",
    "plots",
    "ranking",
    "standing",
    "curves",
    "axes",
    "parallel",
    "sweep",
    "best_runs",
    "pairs",
    "provenance",
    "start",
)


def as_html(report: ComparisonReport, with_sentences: bool = True, slice_columns: Sequence[str] = ()) -> str:
    """Return a self-contained HTML page.

    Args:
        report: The comparison.
        with_sentences: Include the sentences of the pairs, if the data are on this machine.
        slice_columns: Columns of the data to slice the pairs by.

    Raises:
        InputError: if the data have no such column, or cannot be read.
    """
    from plotly.offline import get_plotlyjs

    script = "\n".join(['"use strict";', *(asset(f"{name}.js") for name in _SCRIPTS)])
    scripts = {"plotly": get_plotlyjs(), "script": f"(() => {{\n{script}\n}})();"}
    parts = {
        "policy": _policy(list(scripts.values())),
        "style": asset("page.css"),
        "data": embed_json({**_content(report, with_sentences, slice_columns), "chinese": catalogue()["page"]}),
        **scripts,
    }
    texts = re.split(r"\{\{(\w+)\}\}", asset("page.html"))  # text and names of parts alternate
    return "".join(parts[text] if index % 2 else text for index, text in enumerate(texts))


def asset(name: str) -> str:
    """Return the text of an asset."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """Return a content security policy that allows these scripts only, and no network access."""
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _content(report: ComparisonReport, with_sentences: bool, slice_columns: Sequence[str]) -> dict[str, Any]:
    """Return everything that the page shows as plain data. Runs are referred to by their index in ``runs``."""

    def bilingual(text: str) -> list[str]:
        return [text, chinese(text)]

    runs = [run for setting in report.settings for run in setting.runs]
    plot_axes = axes(report, runs)
    shares, note = importance(report, runs, plot_axes)
    differences = [comparison.difference for comparison in report.comparisons]
    best = best_runs(report, with_sentences, slice_columns)
    if best and (why := best["pairs"]["why"]):
        best["pairs"]["why"] = bilingual(why)
    return {
        "version": afqmc.__version__,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "metric": report.metric,
        "split": split_of(report.metric),
        "higher_is_better": report.higher_is_better,
        "findings": [bilingual(comparison.sentence) for comparison in report.comparisons],
        "significant": [difference.significant for difference in differences],
        "headline": bilingual(report.headline) if report.headline else None,
        "caveats": [bilingual(caveat) for caveat in report.caveats],
        "incomparable": [
            bilingual(msg("{setting}: {why}", setting=display_name(setting, report.settings), why=why))
            for setting, why in report.incomparable
        ],
        "unfinished": [[run.name, run.status, bilingual(run.why)] for run in report.unfinished],
        "ranking": _ranking(report),
        "runs": [
            _run(run, index, report.metric) for index, setting in enumerate(report.settings) for run in setting.runs
        ],
        "standing": standing_data(report),
        "trials": trial_data(report),
        "costs": cost_data(report),
        "changes": [bilingual(comparison.churn_sentence) for comparison in report.comparisons],
        "published": [bilingual(sentence) for sentence in report.published],
        "curves": curves(runs),
        "axes": [axis.as_dict() for axis in plot_axes],
        "importance": {"shares": shares, "note": bilingual(note)},
        "best_runs": best,
        "configs": configs(runs),
        "machines": machines(runs),
    }


def _ranking(report: ComparisonReport) -> dict[str, Any]:
    # rank and metric come first, because a phone has room for little more
    shown = sorted(columns(report), key=lambda column: (column.header != "#", column.header != report.metric))
    return {
        "headers": [[column.header, column.is_number, _sorts_descending(column, report)] for column in shown],
        "keys": len(report.keys),
        "names": [setting.name for setting in report.settings],
        "rows": [[column.cell(setting) for column in shown] for setting in report.settings],
    }


def _sorts_descending(column: Column, report: ComparisonReport) -> bool:
    """Return whether the first click on the header sorts the highest value first."""
    if column.header in (report.metric, INTERVAL, folds_column(split_of(report.metric))):
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
