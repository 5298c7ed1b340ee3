"""What a person sees: bars on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import io
import logging
import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from afqmc.utils.errors import printable, visible

log = logging.getLogger(__name__)


LOG_FILE_ONLY = {"unseen": True}  # logging's ``extra`` for what a run's log keeps and the screen shows otherwise


class Console(logging.StreamHandler[Any]):
    """Log lines on standard output that do not tear the bars; a warning says that it is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write above the bars."""
        if hasattr(record, "unseen"):
            return
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        try:
            with tqdm.external_write_mode(file=sys.stdout):  # the bars are drawn again when this line is out
                sys.stdout.write(f"{mark}{self.format(record)}\n")
                sys.stdout.flush()
        except Exception:
            self.handleError(record)


def is_terminal() -> bool:
    """Whether bars can be drawn."""
    return sys.stderr.isatty()


def bar(**settings: Any) -> tqdm[Any]:
    """A bar of tqdm's by a clock that nobody sets back; by the time of day, its own, it would stand still as long."""
    found = tqdm(**settings)
    found._time = time.monotonic  # type: ignore[attr-defined]
    found.start_t = found.last_print_t = time.monotonic()
    return found


class TrainingBar:
    """Steps done, with loss, learning rate, pairs a second and the time left: a bar, or a line a row."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self.since = time.perf_counter()
        self.bar = bar(
            total=total, initial=done, unit="step", desc="train", dynamic_ncols=True, disable=not is_terminal()
        )
        self.loss, self.lr = math.nan, math.nan

    def step(self, step: int, epoch: float, loss: float | None, lr: float | None, speed: float, due: bool) -> None:
        """One more step, with its figures; loss and learning rate may be unknown, unless a row is ``due``."""
        self.loss, self.lr = (self.loss if loss is None else loss), (self.lr if lr is None else lr)
        if not self.bar.disable:
            known = f"loss {self.loss:.4f}, lr {self.lr:.2e}, " if math.isfinite(self.loss) else ""
            self.bar.set_postfix_str(f"{known}{speed:.0f} pairs/s", refresh=False)
            self.bar.update(step - self.bar.n)  # draws ten times a second at most
        if due:
            left = (time.perf_counter() - self.since) / max(step - self.done, 1) * (self.total - step)
            log.info(
                "step %d/%d  epoch %.2f  loss %.4f  lr %.2e  %.0f pairs/s  %s left",
                step, self.total, epoch, self.loss, self.lr, speed, tqdm.format_interval(left),
                extra=None if self.bar.disable else LOG_FILE_ONLY,
            )  # fmt: skip

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()


class CountBar:
    """Pairs done of an evaluation; nothing where there is no terminal."""

    def __init__(self, total: int, description: str) -> None:
        self.bar = bar(
            total=total,
            unit="pair",
            desc=printable(description),
            leave=False,
            dynamic_ncols=True,
            disable=not is_terminal(),
        )

    def __enter__(self) -> CountBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        """So many more."""
        self.bar.update(count)


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Two columns, a name and its value, under a title; nothing is wrapped. Plain in the log of a run too.

    A terminal that is too narrow for the borders gets lines without them.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [(visible(name), visible(value)) for name, value in rows]
    if sum(max(map(cell_width, column), default=0) for column in zip(*cells, strict=True)) + 7 > width():
        text = "\n".join(f"{name}: {value}" for name, value in cells)
        print(f"{visible(title)}\n{text}")
        log.info("%s\n%s", visible(title), text, extra=LOG_FILE_ONLY)
        return
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in cells:
        table.add_row(Text(name), Text(value))
    _print_titled(title, table)


def print_grid(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a header line: the first column names, the others numbers, which are never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for place, header in enumerate(headers):
        is_name = place == 0
        table.add_column(
            Text(visible(header)), justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold",
            min_width=None if is_name else cell_width(header),
        )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    _print_titled(title, table)


def _print_titled(title: str, table: Any) -> None:
    from rich.console import Console as Rich

    title = visible(title)
    print(title)
    Rich(file=sys.stdout, soft_wrap=False).print(table)
    plain = io.StringIO()
    Rich(file=plain, width=120).print(table)
    log.info("%s\n%s", title, plain.getvalue().rstrip(), extra=LOG_FILE_ONLY)


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    from rich.console import Console as Rich

    return Rich(file=sys.stdout).width


def cell_width(text: str) -> int:
    """Columns that a text takes; a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def format_duration(seconds: float) -> str:
    """``75.2`` as ``1:15``."""
    return str(tqdm.format_interval(seconds))
