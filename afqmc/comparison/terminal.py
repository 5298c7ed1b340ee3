"""The comparison on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afqmc.comparison.report import Report
from afqmc.comparison.wording import display_name, folds_column, headline, parts, required_effort, split_of
from afqmc.results.settings import Setting, format_value, short_keys
from afqmc.utils.console import format_duration
from afqmc.utils.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LINES = 2  # of a setting in the table, at most
_LEAST = 24  # places of a column of settings: no number is longer
_SENTENCES = 4  # more are a table
_BESIDE = ("accuracy", "f1", "auc", "mcc")  # shown where there is room


@dataclass(frozen=True)
class Column:
    """A column of the ranked table; where there is no room, ``optional`` ones go first, then those of ``costs``."""

    header: str
    cell: Callable[[Setting], str]
    is_number: bool = True
    optional: bool = False
    costs: bool = False


def columns(report: Report) -> list[Column]:
    """What is shown of each setting: what differs, the metric over its seeds, what it cost, other metrics."""
    metric, split = report.metric, split_of(report.metric)
    short = short_keys(report.keys)

    def of_key(key: str) -> Column:
        return Column(short[key], lambda setting: format_value(setting.values[key]), is_number=False)

    def of_figure(name: str) -> Column:
        return Column(name.partition("/")[2], lambda setting: _decimal(setting.mean(name), 4), optional=True)

    def of_cost(header: str, attribute: str, text: Callable[[float], str]) -> Column:
        def cell(setting: Setting) -> str:
            mean = setting.mean_of(attribute)
            return "-" if mean is None else text(mean)

        return Column(header, cell, costs=True)

    beside = [f"{split}/{name}" for name in _BESIDE if f"{split}/{name}" != metric]
    every = [
        Column("#", lambda setting: str(report.settings.index(setting) + 1)),
        *(
            [Column("data", lambda setting: str(report.data_of[setting]))]
            if len(set(report.data_of.values())) > 1
            else []
        ),
        *([Column("sweep", lambda setting: setting.sweeps, is_number=False)] if _has_sweeps(report) else []),
        *(of_key(key) for key in report.keys),
        *([] if report.keys else [Column("run", lambda setting: setting.name, is_number=False)]),
        Column(metric, lambda setting: _over_seeds(setting, metric)),
        Column(
            folds_column(split),
            lambda setting: _decimal(report.together.get(setting), 4),
        ),
        of_cost("epoch", "best_epoch", lambda value: f"{value:.2f}"),
        of_cost("time", "seconds", format_duration),
        of_cost("pairs/s", "pairs_per_second", lambda value: f"{value:.0f}"),
        of_cost("GiB", "peak_memory_gib", lambda value: f"{value:.1f}"),
        *(of_figure(name) for name in beside),
    ]
    return [column for column in every if any(column.cell(setting) != "-" for setting in report.settings)]


def show(report: Report, top: int) -> None:
    """Print it: what has no figures, the ranking, what can be said of it."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    unfinished = [f"{run.name}: {', '.join(filter(None, (run.status, run.why)))}" for run in report.unfinished]
    _lines(console, f"without final figures: {len(unfinished)}", unfinished)
    if report.settings:
        layout = _layout(report, top, console)
        console.print(_ranked(report, layout, top))
        _lines(console, "", _left_out(report, top, layout))
    _say(console, report)
    _lines(
        console, "not compared", [f"{display_name(setting, report.settings)}: {why}" for setting, why in report.refused]
    )
    _lines(console, "to read this rightly", report.notes)


def _has_sweeps(report: Report) -> bool:
    return len({run.sweep for setting in report.settings for run in setting.runs}) > 1


def _left_out(report: Report, top: int, layout: Layout) -> list[str]:
    """What the table has no room for."""
    found = []
    if not layout.is_whole:
        found.append(f"the settings differ in {len(report.keys)} keys: rows name a run, --csv and --json hold all keys")
    if (more := len(report.settings) - top) > 0:
        found.append(f"ranked below these: {more} more; --top {len(report.settings)} shows them, files hold all")
    return found


@dataclass(frozen=True)
class Layout:
    """The columns of the ranked table; ``is_whole`` unless rows name a run for want of room for its settings."""

    columns: list[Column]
    is_whole: bool = True


def _layout(report: Report, top: int, console: Console) -> Layout:
    """As much as the width has room for, without breaking a number and with two lines per setting at most.

    First other metrics go, then the settings share a column, then the costs go, then rows name a run.
    """
    every = columns(report)
    first = [column for column in every if column.header in ("#", "data", "sweep")]
    count = len(first) + max(len(report.keys), 1)  # without keys there is the run's name
    spread, after = every[:count], every[count:]
    needed = [column for column in after if not column.costs and not column.optional]
    costs = [column for column in after if column.costs]
    other = [column for column in after if column.optional]
    layouts = [Layout([*spread, *needed, *costs, *other[:some]]) for some in range(len(other), -1, -1)]
    if len(report.keys) > 1:
        whole = Column("setting", lambda setting: setting.name, is_number=False)
        layouts += [Layout([*first, whole, *needed, *costs[:some]]) for some in range(len(costs), -1, -1)]
        if first[-1].header == "sweep":
            with_sweep = Column("setting", lambda setting: f"{setting.sweeps}: {setting.name}", is_number=False)
            layouts.append(Layout([*first[:-1], with_sweep, *needed]))
        named = Column("setting", lambda setting: f"{setting.runs[0].name} ...", is_number=False)
        last = Layout([*first, named, *needed], is_whole=False)
    else:
        layouts += [Layout([*spread, *needed, *costs[:some]]) for some in range(len(costs) - 1, -1, -1)]
        last = layouts[-1]
    return next((layout for layout in layouts if _fits(report, layout, top, console.width)), last)


def _fits(report: Report, layout: Layout, top: int, width: int) -> bool:
    """Whether all numbers are whole, and every setting takes two lines at most."""
    from rich.text import Text

    console, left, texts = _console(width), width - 3 * len(layout.columns), []
    for column in layout.columns:
        cells = [Text(column.header), *(Text(printable(column.cell(one))) for one in report.settings[:top])]
        if column.header == "setting":
            texts = cells
        else:
            left -= max(cell.cell_len for cell in cells)
    if not texts:
        return left >= 0
    return left >= _LEAST and all(len(text.wrap(console, left)) <= _LINES for text in texts)


def _console(width: int) -> Console:
    from rich.console import Console

    return Console(width=width, file=io.StringIO())


def _ranked(report: Report, layout: Layout, top: int) -> Table:
    from rich.text import Text

    complete = sum(len(setting.runs) for setting in report.settings)
    table = _table(
        f"{_counted(complete, 'run')} of {_counted(len(report.settings), 'setting')}, best {report.metric} first"
    )
    for column in layout.columns:
        table.add_column(
            column.header, justify="right" if column.is_number else "left", no_wrap=column.is_number, overflow="fold"
        )
    shown = report.settings[:top]
    for place, setting in enumerate(shown):
        cells = [Text(_printable_lines(column.cell(setting))) for column in layout.columns]
        last_of_its_data = place + 1 < len(shown) and report.data_of[shown[place + 1]] != report.data_of[setting]
        table.add_row(*cells, style="bold" if place == 0 else "", end_section=last_of_its_data)
    return table


def _say(console: Console, report: Report) -> None:
    """A sentence a comparison, or a table where that makes too many."""
    from rich.text import Text

    if len(report.comparisons) <= _SENTENCES or report.family is None:
        return _lines(console, "what can be said", [comparison.sentence for comparison in report.comparisons])
    best = display_name(report.compared[0], report.settings)
    table = _table(headline(best, [comparison.difference for comparison in report.comparisons]))
    for header in ("than", "by", "95% CI", "p", "to tell them apart"):
        table.add_column(header, overflow="fold", no_wrap=header in ("by", "95% CI", "p"))
    for comparison in report.comparisons:
        difference, examples = comparison.difference, report.family.examples
        needed = "" if difference.is_found else required_effort(difference, split_of(report.metric), examples)
        size, interval, p = parts(difference, report.metric)
        cells = (
            display_name(comparison.second, report.settings),
            size,
            interval,
            p.removeprefix("p = ").removeprefix("p "),
            needed,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if difference.is_found else "")
    return console.print(table)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def _lines(console: Console, title: str, lines: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not lines:
        return
    if title:
        console.print(Text(title, style="italic"))
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("-", Text(printable(line)))
    console.print(grid, "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _over_seeds(setting: Setting, metric: str) -> str:
    mean, deviation, n = setting.mean(metric), setting.deviation(metric), len(setting.figures(metric))
    if mean is None:
        return "undefined"
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    return f"{mean:.4f}{spread} ({n})"


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
