"""Print the table of figures at the end of a run."""

from __future__ import annotations

import logging
from typing import Any

from afqmc.utils.console import format_duration, print_table

log = logging.getLogger(__name__)

NEXT_STEP = "to try: a pretrained model, more pairs or epochs, another lr, trainer.monitor=dev/roc_auc or dev/f1"


def _test_figures(summary: dict[str, Any]) -> list[tuple[str, float | None]]:
    """Return the names and values to show of a labelled test split; empty when it has no labels."""
    metrics = summary.get("test", {})
    return [(name, metrics[f"test/{name}"]) for name in ("accuracy", "f1") if f"test/{name}" in metrics]


def print_summary(summary: dict[str, Any]) -> None:
    """Print the main figures of summary.json; warn when the best weights are no better than one label for all pairs."""
    best = summary["best"]
    if "pretraining" in summary:
        print_pretraining_summary(summary)
        return
    majority = best["dev/majority_accuracy"]

    def formatted(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.4f}"

    def dev(name: str) -> str:
        return formatted(best[f"dev/{name}"])

    print_table(
        f"best on dev by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch {best['epoch']:g}",
        [
            ("accuracy", dev("accuracy")),
            ("majority accuracy", formatted(majority)),
            *((name.replace("_", " "), dev(name)) for name in ("f1", "roc_auc", "average_precision", "mcc", "loss")),
            *((("asymmetry", dev("asymmetry")),) if "dev/asymmetry" in best else ()),  # not in runs of version 0.1.0
            *((f"test {name}", formatted(value)) for name, value in _test_figures(summary)),
            *_methods(summary),
            ("training", f"{summary['train_pairs_per_second']:.0f} pairs/s"),
            *_durations(summary),
        ],
    )
    if summary["collapsed_label"] is not None:
        log.warning("the best weights are collapsed: %s", describe_collapse(summary["collapsed_label"], majority))
    elif not summary.get("beats_majority", True):
        log.warning(
            "the best weights do not beat the majority: dev accuracy %.4f, with one label for all pairs %.4f; %s",
            best["dev/accuracy"],
            majority,
            NEXT_STEP,
        )


def print_pretraining_summary(summary: dict[str, Any]) -> None:
    """Print the main figures of summary.json of a pretraining."""
    best, counts = summary["best"], summary["pretraining"]
    print_table(
        f"best on held-out sentences by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch "
        f"{best['epoch']:g}",
        [
            ("loss", f"{best['dev/loss']:.4f}"),
            ("masked accuracy", f"{best['dev/masked_accuracy']:.4f}"),
            ("perplexity", f"{best['dev/perplexity']:.2f}"),
            ("sentences", str(counts["pretrained"])),
            ("left out (in dev or test)", str(counts["excluded"])),
            *_methods(summary),
            ("training", f"{summary['train_pairs_per_second']:.0f} sentences/s"),
            *_durations(summary),
        ],
    )


def _methods(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the methods of the run report."""
    return [(name, f"{value:.4g}") for name, value in summary.get("methods", {}).items()]


def _durations(summary: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("training time", format_duration(summary["train_seconds"])),
        ("padding", f"{summary['train_padding_fraction']:.1%}"),
        ("whole run", format_duration(summary["total_seconds"])),
    ]


def describe_collapse(collapsed_label: str, majority: float) -> str:
    """Return a sentence that explains the collapse."""
    return (
        f"{collapsed_label!r} is predicted for (nearly) every dev pair, so accuracy says nothing "
        f"(majority: {majority:.4f}); {NEXT_STEP}"
    )
