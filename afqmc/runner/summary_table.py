"""Print the table of figures at the end of a run."""

from __future__ import annotations

import logging
from typing import Any

from afqmc.utils.console import format_duration, print_table

log = logging.getLogger(__name__)

_CALIBRATED = {"loss": "nll_calibrated", "brier": "brier_calibrated", "ece": "ece_calibrated"}
NEXT_STEP = "to try: a pretrained model, more pairs or epochs, another lr, trainer.monitor=dev/roc_auc or dev/f1"


def _test_figures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values to show of a labelled test split; empty when it has no labels."""
    metrics = summary.get("test", {})
    return [
        (f"test {name}", _figure(summary, metrics, "test", name))
        for name in ("accuracy", "f1", "cost")
        if f"test/{name}" in metrics
    ]


def _figure(summary: dict[str, Any], metrics: dict[str, float | None], split: str, name: str) -> str:
    """Return a metric and, with a decision, the same one with its threshold or its calibrated probabilities.

    After ± is half of the 95% interval over other pairs; runs of earlier versions do not record it.
    """

    def figure(key: str) -> str:
        value = metrics[f"{split}/{key}"]
        return "undefined" if value is None else f"{value:.4f}"

    value, decided, calibrated = figure(name), f"{name}_decided", _CALIBRATED.get(name)
    if interval := summary.get("intervals", {}).get(f"{split}/{name}"):
        value = f"{value} ± {(interval[1] - interval[0]) / 2:.4f}"
    if f"{split}/{decided}" in metrics:
        return f"{value}, decided {figure(decided)}"
    if calibrated is not None and f"{split}/{calibrated}" in metrics:
        return f"{value}, calibrated {figure(calibrated)}"
    return value


def print_summary(summary: dict[str, Any]) -> None:
    """Print the main figures of summary.json; warn when the best weights are no better than one label for all pairs."""
    best = summary["best"]
    if "pretraining" in summary:
        print_pretraining_summary(summary)
        return
    majority, decision = best["dev/majority_accuracy"], summary.get("decision", {})
    names = ("f1", "roc_auc", "average_precision", "mcc", "cost", "loss", "brier", "ece", "asymmetry")
    print_table(
        f"best on dev by {summary['monitor'].removeprefix('dev/')}: step {best['step']}, epoch {best['epoch']:g}",
        [
            ("accuracy", _figure(summary, best, "dev", "accuracy")),
            ("majority accuracy", f"{majority:.4f}"),
            # runs of earlier versions have no asymmetry, Brier score and calibration error
            *((name.replace("_", " "), _figure(summary, best, "dev", name)) for name in names if f"dev/{name}" in best),
            *_test_figures(summary),
            *([("threshold", f"{decision['threshold']:.4f}")] if "threshold" in decision else []),
            *_methods(summary),
            ("training", f"{summary['train_pairs_per_second']:.0f} pairs/s"),
            *_durations(summary),
        ],
    )
    beats_majority = summary.get("beats_majority", True)
    if not beats_majority and summary.get("beats_majority_decided", False):
        log.warning(
            "the best weights beat the majority only with their decision: dev accuracy %.4f, decided %.4f, with one "
            "label for all pairs %.4f",
            best["dev/accuracy"],
            best["dev/accuracy_decided"],
            majority,
        )
    elif summary["collapsed_label"] is not None:
        log.warning("the best weights are collapsed: %s", describe_collapse(summary["collapsed_label"], majority))
    elif not beats_majority:
        log.warning(
            "the best weights do not beat the majority: dev accuracy %s, with one label for all pairs %.4f; %s",
            _figure(summary, best, "dev", "accuracy"),
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
