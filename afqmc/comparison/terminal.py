"""Print the comparison in the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.wording import (
    EQUIVALENT,
    display_name,
    folds_column,
    format_difference,
    format_size,
    is_equivalent,
    required_effort,
    split_of,
)
from afqmc.results.settings import Setting, format_value, short_keys
from afqmc.utils.console import format_duration
from afqmc.utils.errors import printable
from afqmc.utils.language import join_messages, msg, translate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

INTERVAL = "95% CI"  # header of the intervals of means
_MAX_LINES = 2  # per setting in the table
_MIN_WIDTH = 24  # of the column "setting"; no number is longer
_MAX_SENTENCES = 4  # more comparisons than that are shown as a table
_TRANSLATED_HEADERS = {"data", "sweep", "run", "setting", "epoch", "time", "pairs/s", "accuracy", INTERVAL}
_EXTRA_METRICS = (  # shown if there is room, the first ones first
    "accuracy", "accuracy_decided", "f1", "f1_decided", "cost", "cost_decided", "roc_auc", "mcc", "brier",
    "brier_calibrated", "asymmetry",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of the ranking. If room is scarce, ``optional`` columns are dropped first, then ``is_cost`` ones."""

    header: str
    cell: Callable[[Setting], str]
    is_number: bool = True
    optional: bool = False
    is_cost: bool = False


def columns(report: ComparisonReport) -> list[Column]:
    """Return the columns of the ranking: varying keys, the metric over seeds, costs, other metrics.

    Columns without any value are left out.
    """
    metric, split = report.metric, split_of(report.metric)
    short = short_keys(report.keys)

    def key_column(key: str) -> Column:
        return Column(short[key], lambda setting: format_value(setting.values[key]), is_number=False)

    def metric_column(name: str) -> Column:
        return Column(name.partition("/")[2], lambda setting: _decimal(setting.mean(name), 4), optional=True)

    def cost_column(header: str, attribute: str, text: Callable[[float], str]) -> Column:
        def cell(setting: Setting) -> str:
            mean = setting.mean_of(attribute)
            return "-" if mean is None else text(mean)

        return Column(header, cell, is_cost=True)

    all_columns = [Column("#", lambda setting: str(report.settings.index(setting) + 1))]
    if len(set(report.data_index.values())) > 1:
        all_columns.append(Column("data", lambda setting: str(report.data_index[setting])))
    if _has_sweeps(report):
        all_columns.append(Column("sweep", lambda setting: setting.sweeps, is_number=False))
    if not report.keys:
        all_columns.append(Column("run", lambda setting: setting.name, is_number=False))
    extra_metrics = [f"{split}/{name}" for name in _EXTRA_METRICS if f"{split}/{name}" != metric]
    all_columns += [
        *map(key_column, report.keys),
        Column(metric, lambda setting: _mean_and_deviation(setting, metric)),
        Column(folds_column(split), lambda setting: _decimal(report.folds_metric.get(setting), 4)),
        Column(INTERVAL, lambda setting: _interval(report.interval(setting))),
        cost_column("epoch", "best_epoch", lambda value: f"{value:.2f}"),
        cost_column("time", "total_seconds", format_duration),
        cost_column("pairs/s", "pairs_per_second", lambda value: f"{value:.0f}"),
        cost_column("GiB", "peak_memory_gib", lambda value: f"{value:.1f}"),
        *map(metric_column, extra_metrics),
    ]
    return [column for column in all_columns if any(column.cell(setting) != "-" for setting in report.settings)]


def print_report(report: ComparisonReport, top: int) -> None:
    """Print unfinished runs, the ranking, the findings and the caveats."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    unfinished = [translate(line) for line in unfinished_runs(report)]
    _print_list(console, f"Without final metrics: {len(unfinished)}", unfinished)
    if report.settings:
        layout = _choose_layout(report, top, console)
        console.print(_ranking_table(report, layout, top))
        _print_list(console, "", _omissions(report, top, layout))
    _print_findings(console, report)
    incomparable = [
        f"{display_name(setting, report.settings)}: {translate(why)}" for setting, why in report.incomparable
    ]
    changes = [comparison.churn_sentence for comparison in report.comparisons]
    if len(changes) > _MAX_SENTENCES:
        more = len(changes) - _MAX_SENTENCES
        changes = [
            *changes[:_MAX_SENTENCES],
            msg("{more} more comparisons: in the files of --json, --md and --html", more=more),
        ]
    _print_list(console, "Changed predictions", changes)
    _print_list(console, "Published results", report.published)
    _print_list(console, "Not compared", incomparable)
    _print_list(console, "Caveats", report.caveats)


def unfinished_runs(report: ComparisonReport) -> list[str]:
    """Return one line per run without final metrics: its name, its setting, its status and the reason."""
    lines: list[str] = []
    for run in report.unfinished:
        setting = next((setting.name for setting in report.settings if setting.has_config_of(run)), None)
        name = run.name if setting is None else f"{run.name} ({setting})"
        why = join_messages([text for text in (msg(run.status), run.why) if text])
        lines.append(msg("{name}: {why}", name=name, why=why))
    return lines


def _has_sweeps(report: ComparisonReport) -> bool:
    return len({run.sweep for setting in report.settings for run in setting.runs}) > 1


def _omissions(report: ComparisonReport, top: int, layout: Layout) -> list[str]:
    """Say what is not in the table."""
    omissions = []
    if not layout.shows_settings:
        omissions.append(
            f"the settings differ in {len(report.keys)} keys, too many for this width: rows name a run; "
            "--csv and --json have all keys"
        )
    if (more := len(report.settings) - top) > 0:
        omissions.append(f"{more} more ranked lower: --top {len(report.settings)} shows them, files have all settings")
    return omissions


@dataclass(frozen=True)
class Layout:
    """The columns of the ranking; without ``shows_settings`` the rows name a run instead of their settings."""

    columns: list[Column]
    shows_settings: bool = True


def _choose_layout(report: ComparisonReport, top: int, console: Console) -> Layout:
    """Choose the columns that fit, without wrapping a number and with at most two lines per setting.

    To save room, other metrics are dropped first; then all settings share a column; then costs and intervals are
    dropped; then rows name a run.
    """
    all_columns = columns(report)
    leading = [column for column in all_columns if column.header in ("#", "data", "sweep")]
    count = len(leading) + max(len(report.keys), 1)  # without varying keys there is the column "run"
    separate, rest = all_columns[:count], all_columns[count:]
    required = [column for column in rest if not column.is_cost and not column.optional]
    narrow = [column for column in required if column.header != INTERVAL]
    costs = [column for column in rest if column.is_cost]
    optional = [column for column in rest if column.optional]
    layouts = [Layout([*separate, *required, *costs, *optional[:n]]) for n in range(len(optional), -1, -1)]
    if len(report.keys) > 1:
        combined = Column("setting", lambda setting: setting.name, is_number=False)
        layouts += [Layout([*leading, combined, *required, *costs[:n]]) for n in range(len(costs), -1, -1)]
        layouts.append(Layout([*leading, combined, *narrow]))
        if leading[-1].header == "sweep":
            with_sweep = Column("setting", lambda setting: f"{setting.sweeps}: {setting.name}", is_number=False)
            layouts.append(Layout([*leading[:-1], with_sweep, *narrow]))
        run_name = Column("setting", lambda setting: f"{setting.runs[0].name} ...", is_number=False)
        last_resort = Layout([*leading, run_name, *narrow], shows_settings=False)
    else:
        layouts += [Layout([*separate, *required, *costs[:n]]) for n in range(len(costs) - 1, -1, -1)]
        layouts.append(Layout([*separate, *narrow]))
        last_resort = layouts[-1]
    return next((layout for layout in layouts if _fits(report, layout, top, console.width)), last_resort)


def _fits(report: ComparisonReport, layout: Layout, top: int, width: int) -> bool:
    """Return whether no number is wrapped, and every setting takes at most two lines."""
    from rich.text import Text

    console, remaining, texts = _measuring_console(width), width - 3 * len(layout.columns), []
    for column in layout.columns:
        cells = [Text(_header(column)), *(Text(printable(column.cell(setting))) for setting in report.settings[:top])]
        if column.header == "setting":
            texts = cells
        else:
            remaining -= max(cell.cell_len for cell in cells)
    if not texts:
        return remaining >= 0
    return remaining >= _MIN_WIDTH and all(len(text.wrap(console, remaining)) <= _MAX_LINES for text in texts)


def _header(column: Column) -> str:
    return translate(column.header) if column.header in _TRANSLATED_HEADERS else column.header  # or a key of the user


def _measuring_console(width: int) -> Console:
    from rich.console import Console

    return Console(width=width, file=io.StringIO())


def _ranking_table(report: ComparisonReport, layout: Layout, top: int) -> Table:
    from rich.text import Text

    runs = sum(len(setting.runs) for setting in report.settings)
    table = _table(f"{_count(runs, 'run')} of {_count(len(report.settings), 'setting')}, best {report.metric} first")
    for column in layout.columns:
        table.add_column(
            _header(column), justify="right" if column.is_number else "left", no_wrap=column.is_number, overflow="fold"
        )
    shown = report.settings[:top]
    for index, setting in enumerate(shown):
        cells = [Text(_printable_lines(column.cell(setting))) for column in layout.columns]
        ends_group = index + 1 < len(shown) and report.data_index[shown[index + 1]] != report.data_index[setting]
        table.add_row(*cells, style="bold" if index == 0 else "", end_section=ends_group)
    return table


def _print_findings(console: Console, report: ComparisonReport) -> None:
    """Print a sentence per comparison, or a table if there are many."""
    from rich.text import Text

    if len(report.comparisons) <= _MAX_SENTENCES or report.tests is None or report.baseline is not None:
        title = report.headline if report.baseline is not None and report.headline else "Findings"
        return _print_list(console, title, [comparison.sentence for comparison in report.comparisons])
    table = _table(report.headline or "")
    for header in ("than", "by", "95% CI", "p", "needed to detect it"):
        table.add_column(translate(header), overflow="fold", no_wrap=header in ("by", "95% CI", "p"))
    for comparison in report.comparisons:
        difference = comparison.difference
        needed = "" if difference.significant else required_effort(difference, report.metric)
        if is_equivalent(difference, report.metric):
            needed = msg("differ by less than {margin}", margin=format_size(report.metric, EQUIVALENT))
        size, interval, p = format_difference(difference, report.metric)
        cells = (
            display_name(comparison.other, report.settings),
            size,
            interval,
            p.removeprefix("p = ").removeprefix("p "),
            needed,
        )
        table.add_row(
            *(Text(printable(translate(cell))) for cell in cells), style="bold" if difference.significant else ""
        )
    console.print(table)
    remarks = [comparison.sentence for comparison in report.comparisons if comparison.has_remarks]
    return _print_list(console, "Remarks on these comparisons", remarks)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=translate(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not lines:
        return
    if title:
        console.print(Text(translate(title), style="italic"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(overflow="fold")  # a Chinese sentence has no spaces to break at
    for line in lines:
        grid.add_row("-", Text(printable(translate(line))))
    console.print(grid, "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _mean_and_deviation(setting: Setting, metric: str) -> str:
    mean, deviation, n = setting.mean(metric), setting.deviation(metric), len(setting.figures(metric))
    if mean is None:
        return "undefined"
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    return f"{mean:.4f}{spread} ({n})"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.4f}–{ends[1]:.4f}"


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
