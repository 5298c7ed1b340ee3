"""Console output: progress bars on a terminal, plain lines elsewhere, and tables."""

from __future__ import annotations

import copy
import io
import logging
import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from afqmc.utils.errors import printable, visible
from afqmc.utils.language import translate, translate_log

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

LOG_FILE_ONLY = {"log_file_only": True}  # ``extra`` of log records that the console shows in another form


class Console(logging.StreamHandler[Any]):
    """Log handler for standard output that keeps progress bars intact and marks warnings as such."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record above the bars."""
        if hasattr(record, "log_file_only"):
            return
        try:
            shown = copy.copy(record)  # the log file stays English
            shown.msg, shown.args = translate_log(str(record.msg), record.args), None
            prefix = translate(f"{record.levelname.lower()}: ") if record.levelno >= logging.WARNING else ""
            with tqdm.external_write_mode(file=sys.stdout):  # removes the bars, and redraws them afterwards
                sys.stdout.write(f"{prefix}{self.format(shown)}\n")
                sys.stdout.flush()
        except Exception:
            self.handleError(record)


def is_terminal() -> bool:
    """Return whether bars can be drawn."""
    return sys.stderr.isatty()


def bar(**settings: Any) -> tqdm[Any]:
    """Return a tqdm bar on a monotonic clock. With its own wall clock it would freeze when the time is set back."""
    progress = tqdm(**settings)
    progress._time = time.monotonic  # type: ignore[attr-defined]
    progress.start_t = progress.last_print_t = time.monotonic()
    return progress


class TrainingBar:
    """Training progress with loss, learning rate, speed and time left.

    A bar on a terminal; elsewhere one log line per logged step.
    """

    def __init__(self, total: int, done: int = 0, speed_unit: str = "pairs/s") -> None:
        self.total, self.done = total, done
        self.since = time.perf_counter()
        self.bar = bar(
            total=total,
            initial=done,
            unit=translate("step"),
            desc=translate("train"),
            dynamic_ncols=True,
            disable=not is_terminal(),
        )
        self.loss, self.lr = math.nan, math.nan
        self.loss_name, self.speed_unit = translate("loss"), speed_unit

    def step(self, step: int, epoch: float, loss: float | None, lr: float | None, speed: float, due: bool) -> None:
        """Advance to ``step``; a loss or learning rate of None keeps the last known one. ``due`` logs a line."""
        self.loss, self.lr = (self.loss if loss is None else loss), (self.lr if lr is None else lr)
        shown_speed = f"{speed:.0f} {self.speed_unit}"
        if not self.bar.disable:
            figures = f"{self.loss_name} {self.loss:.4f}, lr {self.lr:.2e}, " if math.isfinite(self.loss) else ""
            self.bar.set_postfix_str(f"{figures}{translate(shown_speed)}", refresh=False)
            self.bar.update(step - self.bar.n)  # tqdm draws at most ten times per second
        if due:
            left = (time.perf_counter() - self.since) / max(step - self.done, 1) * (self.total - step)
            log.info(
                "step %d/%d  epoch %.2f  loss %.4f  lr %.2e  %s  %s left",
                step, self.total, epoch, self.loss, self.lr, shown_speed, tqdm.format_interval(left),
                extra=None if self.bar.disable else LOG_FILE_ONLY,
            )  # fmt: skip

    def close(self) -> None:
        """Close the bar."""
        self.bar.close()


class CountBar:
    """Progress of an evaluation in pairs; shown only on a terminal, and not if ``show`` is false."""

    def __init__(self, total: int, description: str, show: bool = True) -> None:
        self.bar = bar(
            total=total,
            unit=translate("pair"),
            desc=printable(description),
            leave=False,
            dynamic_ncols=True,
            disable=not (show and is_terminal()),
        )

    def __enter__(self) -> CountBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        """Advance the bar by ``count`` pairs."""
        self.bar.update(count)


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values as a table under a title, and log it as plain English text.

    Cells are never wrapped: on a terminal that is too narrow for the borders, plain lines are printed instead.
    """
    cells = [(visible(name), visible(value)) for name, value in rows]
    shown = [(translate(name), translate(value)) for name, value in cells]
    if sum(max(map(cell_width, column), default=0) for column in zip(*shown, strict=True)) + 7 > width():
        print(visible(translate(title)), *(f"{name}: {value}" for name, value in shown), sep="\n")
        text = "\n".join(f"{name}: {value}" for name, value in cells)
        log.info("%s\n%s", visible(title), text, extra=LOG_FILE_ONLY)
    else:
        _print_titled(title, _two_columns(shown), _two_columns(cells))


def _two_columns(cells: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in cells:
        table.add_row(Text(name), Text(value))
    return table


def print_grid(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a header line. The first column holds names; the others hold numbers and are never cut.

    The title is translated; headers may be names of the user.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for index, header in enumerate(headers):
        is_name = index == 0
        table.add_column(
            Text(visible(header)), justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold",
            min_width=None if is_name else cell_width(header),
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    _print_titled(title, table, table)


def _print_titled(title: str, shown: Table, logged: Table) -> None:
    from rich.console import Console as Rich

    print(visible(translate(title)))
    Rich(file=sys.stdout, soft_wrap=False).print(shown)
    plain = io.StringIO()
    Rich(file=plain, width=120).print(logged)
    log.info("%s\n%s", visible(title), plain.getvalue().rstrip(), extra=LOG_FILE_ONLY)


def width() -> int:
    """Return the width of the terminal in columns; 80 without one."""
    from rich.console import Console as Rich

    return Rich(file=sys.stdout).width


def cell_width(text: str) -> int:
    """Return the width of a text in terminal columns; a Chinese character is two wide."""
    from rich.cells import cell_len

    return cell_len(text)


def format_duration(seconds: float) -> str:
    """Return ``75.2`` seconds as ``1:15``."""
    return str(tqdm.format_interval(seconds))
