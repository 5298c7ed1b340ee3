"""The small table at the end of a run."""

from __future__ import annotations

from typing import Any

from afqmc.console import clock, print_table


def _test_figures(summary: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures of a labelled test split that the table shows; none for one without labels."""
    found = summary.get("test", {})
    return [(name, found[f"test/{name}"]) for name in ("accuracy", "f1") if f"test/{name}" in found]


def show(summary: dict[str, Any]) -> None:
    """Print the figures of summary.json that people look for."""
    best = summary["best"]
    majority = best["dev/majority_accuracy"]

    def figure(name: str) -> str:
        value = best[f"dev/{name}"]
        return "undefined" if value is None else f"{value:.4f}"

    print_table(
        f"best on dev by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch {best['epoch']:g}",
        [
            ("accuracy", f"{figure('accuracy')}   (majority {majority:.4f})"),
            *((name.replace("_", " "), figure(name)) for name in ("f1", "auc", "average_precision", "mcc", "loss")),
            *((f"test {name}", f"{value:.4f}") for name, value in _test_figures(summary)),
            ("training", f"{summary['train_pairs_per_second']:.0f} pairs/s, {clock(summary['train_seconds'])}"),
            ("padding", f"{summary['train_padding']:.1%} of what was computed"),
            ("whole run", clock(summary["seconds"])),
        ],
    )
