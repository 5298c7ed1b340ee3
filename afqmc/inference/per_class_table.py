"""Print the metrics per class and the confusion matrix, in the width of the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afqmc.utils.console import cell_width, print_grid, width
from afqmc.utils.errors import printable
from afqmc.utils.language import translate

_MAX_MATRIX_CLASSES = 20
_LISTED_CONFUSIONS = 10  # shown instead of a matrix that is too large


def print_class_tables(details: dict[str, Any], notes: Sequence[str]) -> None:
    """Print the tables of ``per_class``, then the notes."""
    classes, matrix = details["classes"], details["confusion_matrix"]
    labels = [printable(row["label"]) for row in classes]
    numbers = [f"#{index}" for index in range(len(labels))]
    headers = next((names for names in (labels, numbers) if _fits(names, matrix)), None)
    names = [f"{number} {label}" for number, label in zip(numbers, labels, strict=True)]
    rows = [
        [name, *(_with_interval(row, metric) for metric in ("precision", "recall", "f1")), str(row["support"])]
        for name, row in zip(names if headers is numbers else labels, classes, strict=True)
    ]
    print_grid("by class", list(map(translate, ("class", "precision", "recall", "f1", "support"))), rows)
    if headers is None:
        _print_confusions(labels, matrix)
    else:
        body = [[name, *map(str, counts)] for name, counts in zip(headers, matrix, strict=True)]
        print_grid("confusion matrix (row: true, column: predicted)", [translate("true"), *headers], body)
    if shares := details.get("confusion_intervals"):
        _print_shares(labels, matrix, shares, format_level(details))
    for note in notes:
        print(translate(note))


def format_level(details: dict[str, Any]) -> str:
    """Return the confidence of the intervals, such as ``95%``."""
    return f"{100 * details.get('interval_level', 0.95):.4g}%"


def _with_interval(row: dict[str, Any], metric: str) -> str:
    """Return a metric of a class and, if it is known, half of its interval."""
    interval = row.get("intervals", {}).get(metric)
    value = f"{row[metric]:.4f}"
    return value if interval is None else f"{value} ± {(interval[1] - interval[0]) / 2:.4f}"


def _fits(names: Sequence[str], matrix: list[list[int]]) -> bool:
    """Return whether the whole matrix fits into the width of the terminal."""
    if len(names) > _MAX_MATRIX_CLASSES:
        return False
    columns = zip(names, zip(*matrix, strict=True), strict=True)
    cells = [max(cell_width(name), *(len(str(count)) for count in counts)) for name, counts in columns]
    return (
        max(cell_width(translate("true")), *map(cell_width, names)) + sum(cells) + 3 * (len(cells) + 1) + 1 <= width()
    )


def _wrong_cells(matrix: list[list[int]]) -> list[tuple[int, int, int]]:
    """Return count, true and predicted class of the confusions that occur, the most frequent first."""
    cells = ((count, row, column) for row, counts in enumerate(matrix) for column, count in enumerate(counts))
    return sorted(
        (cell for cell in cells if cell[0] and cell[1] != cell[2]), key=lambda cell: (-cell[0], cell[1], cell[2])
    )


def _print_shares(
    labels: Sequence[str], matrix: list[list[int]], intervals: list[list[list[float]]], level: str
) -> None:
    """Print the most frequent confusions as shares of the true class, with their intervals."""
    rows = []
    for count, row, column in _wrong_cells(matrix)[:_LISTED_CONFUSIONS]:
        low, high = intervals[row][column]
        share = f"{count / sum(matrix[row]):.4f} ({low:.4f}–{high:.4f})"
        rows.append([f"{labels[row]} -> {labels[column]}", share])
    if rows:
        headers = [translate("true -> predicted"), translate(f"share of the true class ({level} CI)")]
        print_grid("most frequent confusions", headers, rows)


def _print_confusions(labels: Sequence[str], matrix: list[list[int]]) -> None:
    wrong = _wrong_cells(matrix)
    rows = [[f"{labels[row]} -> {labels[column]}", str(count)] for count, row, column in wrong[:_LISTED_CONFUSIONS]]
    if rows:
        print_grid(
            f"most frequent confusions, of {len(wrong)}", [translate("true -> predicted"), translate("pairs")], rows
        )
