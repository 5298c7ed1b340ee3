"""Figures of each class and the confusion matrix on a terminal, as wide as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afqmc.utils.console import cell_width, print_grid, width
from afqmc.utils.errors import printable

_MATRIX, _LISTED = 20, 10  # classes of a matrix at most; pairs of labels that are listed instead


def show_classes(found: dict[str, Any], notes: Sequence[str]) -> None:
    """Print what ``metrics.per_class`` found, then its notes."""
    labels, matrix = [printable(one["label"]) for one in found["classes"]], found["confusion_matrix"]
    numbers = [f"#{place}" for place in range(len(labels))]
    headers = next((names for names in (labels, numbers) if _fits(names, matrix)), None)
    names = [f"{number} {label}" for number, label in zip(numbers, labels, strict=True)]
    rows = [
        [name, *(f"{one[figure]:.4f}" for figure in ("precision", "recall", "f1")), str(one["support"])]
        for name, one in zip(names if headers is numbers else labels, found["classes"], strict=True)
    ]
    print_grid("by class", ["class", "precision", "recall", "f1", "support"], rows)
    if headers is None:
        _show_confusions(labels, matrix)
    else:
        body = [[name, *map(str, counts)] for name, counts in zip(headers, matrix, strict=True)]
        print_grid("confusion matrix (row: true, column: predicted)", ["true", *headers], body)
    for note in notes:
        print(note)


def _fits(names: Sequence[str], matrix: list[list[int]]) -> bool:
    """Whether the terminal is wide enough for the whole matrix."""
    if len(names) > _MATRIX:
        return False
    columns = zip(names, zip(*matrix, strict=True), strict=True)
    cells = [max(cell_width(name), *(len(str(count)) for count in counts)) for name, counts in columns]
    return max(len("true"), *map(cell_width, names)) + sum(cells) + 3 * (len(cells) + 1) + 1 <= width()


def _show_confusions(labels: Sequence[str], matrix: list[list[int]]) -> None:
    wrong = sorted(
        ((count, row, column) for row, counts in enumerate(matrix) for column, count in enumerate(counts)
         if count and row != column),
        key=lambda one: (-one[0], one[1:]),
    )  # fmt: skip
    rows = [[f"{labels[row]} -> {labels[column]}", str(count)] for count, row, column in wrong[:_LISTED]]
    if rows:
        print_grid(f"most frequent confusions, of {len(wrong)}", ["true -> predicted", "pairs"], rows)
