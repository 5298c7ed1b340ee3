"""The small table at the end of a run."""

from __future__ import annotations

import logging
from typing import Any

from afqmc.utils.console import format_duration, print_table

log = logging.getLogger(__name__)

NEXT_STEP = (
    "what may help: trainer.monitor=dev/auc or dev/f1, another threshold (predictions/dev.jsonl), "
    "more epochs, a higher lr"
)


def _test_figures(summary: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The figures of a labelled test split that the table shows; none for one without labels."""
    found = summary.get("test", {})
    return [(name, found[f"test/{name}"]) for name in ("accuracy", "f1") if f"test/{name}" in found]


def print_summary(summary: dict[str, Any]) -> None:
    """Print the figures of summary.json that people look for, and whether they are worth anything."""
    best = summary["best"]
    majority = best["dev/majority_accuracy"]

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.4f}"

    def figure(name: str) -> str:
        return shown(best[f"dev/{name}"])

    print_table(
        f"best on dev by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch {best['epoch']:g}",
        [
            ("accuracy", figure("accuracy")),
            ("majority accuracy", shown(majority)),
            *((name.replace("_", " "), figure(name)) for name in ("f1", "auc", "average_precision", "mcc", "loss")),
            *((f"test {name}", shown(value)) for name, value in _test_figures(summary)),
            ("training", f"{summary['train_pairs_per_second']:.0f} pairs/s"),
            ("training time", format_duration(summary["train_seconds"])),
            ("padding", f"{summary['train_padding']:.1%}"),
            ("whole run", format_duration(summary["seconds"])),
        ],
    )
    if summary["collapsed_onto"] is not None:
        log.warning("the best weights are collapsed: %s", describe_collapse(summary["collapsed_onto"], majority))
    elif not summary.get("beats_majority", True):
        log.warning(
            "the best weights do not beat the majority: dev accuracy %.4f, one answer for all %.4f; %s",
            best["dev/accuracy"], majority, NEXT_STEP,
        )  # fmt: skip


def describe_collapse(collapsed_onto: str, majority: float) -> str:
    """What a collapse means."""
    told = f"{collapsed_onto!r} for (nearly) every dev pair"
    return f"{told}; accuracy says nothing here (majority: {majority:.4f}); {NEXT_STEP}"
