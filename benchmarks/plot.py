"""Bar charts of the ratios: one panel per table, one bar per contestant, whiskers for the spread over rounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.report import Line

OURS = "afqmc"
_COLUMNS = 3
_OURS, _OTHERS, _BASELINE, _INK = "#1b6ca8", "#b9c3cc", "#8a8f94", "#22272b"


def draw(tables: dict[tuple[str, str, int | None], list[Line]], path: Path) -> bool:
    """Draw every table that has ratios, and return whether there was one."""
    shown = {key: lines for key, lines in tables.items() if any(line.ratio for line in lines)}
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from benchmarks.report import baseline, title

    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 2.9 * rows), squeeze=False)
    for axis, (key, lines) in zip(axes.flat, shown.items(), strict=False):
        draw_panel(axis, title(key), [line for line in lines if line.ratio])
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    baseline_name = baseline(line.name for lines in shown.values() for line in lines)
    figure.suptitle(
        f"Pairs per second, as a multiple of {baseline_name}\n(median; whiskers: lowest and highest round)",
        fontsize=11, color=_INK, x=0.01, ha="left",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def draw_panel(axis: Any, heading: str, lines: list[Line]) -> None:
    """Draw one table, the slowest contestant on top and afqmc in colour."""
    from benchmarks.report import BASELINE

    ranked = sorted(lines, key=lambda line: -_ratio(line).median)
    positions, medians = range(len(ranked)), [_ratio(line).median for line in ranked]
    colours = [_OURS if line.name == OURS else _BASELINE if line.name == BASELINE else _OTHERS for line in ranked]
    below = [_ratio(line).median - _ratio(line).low for line in ranked]
    above = [_ratio(line).high - _ratio(line).median for line in ranked]
    axis.barh(
        positions, medians, height=0.68, color=colours, xerr=(below, above),
        error_kw={"ecolor": _INK, "elinewidth": 1, "capsize": 2.5},
    )  # fmt: skip
    axis.axvline(1, color=_BASELINE, linewidth=0.8, linestyle=":")
    widest = max(_ratio(line).high for line in ranked)
    for position, line in zip(positions, ranked, strict=True):
        weight = "bold" if line.name == OURS else "normal"
        text = f"{_ratio(line).median:.2f}×"
        axis.text(
            _ratio(line).high + widest * 0.025, position, text, va="center", fontsize=9, weight=weight, color=_INK
        )
    axis.set_yticks(positions, [line.name for line in ranked], fontsize=9, color=_INK)
    axis.set_xlim(0, widest * 1.2)
    axis.tick_params(axis="x", labelsize=8, colors=_INK)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.set_title(heading, fontsize=10, loc="left", color=_INK)


def _ratio(line: Line) -> Any:
    assert line.ratio is not None
    return line.ratio
