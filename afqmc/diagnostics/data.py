"""Findings on the data: invalid rows, class counts, duplicates, leaks between splits, and the majority baseline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from afqmc.config import Config
from afqmc.data.folds import Folds
from afqmc.data.loading import Dataset, load_dataset
from afqmc.data.quality import (
    DatasetStats,
    SplitStats,
    analyze,
    dataset_warnings,
    fold_lines,
    format_lines,
    left_out,
    skipped_checks,
)
from afqmc.diagnostics.findings import Finding, fail, ok, warn
from afqmc.utils.errors import InputError

_MAX_ERRORS = 8  # different row errors that are shown
_MAX_LINES = 5  # further line numbers that are shown for each


class RowErrors:
    """Collects errors of rows, and groups those with the same message."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}  # message with {} for the line number: its line numbers

    def add(self, text: str) -> None:
        """Add an error ``file:line: message``."""
        file, line, message = (*re.split(r":(\d+): ", text, maxsplit=1), "", "")[:3]
        self.lines.setdefault(f"{file}:{{}}: {message}" if line else text, []).append(line)

    def findings(self) -> Iterator[Finding]:
        """Yield a failure for each message, and one with the number of rows that are not shown."""
        for message in list(self.lines)[:_MAX_ERRORS]:
            first, *others = self.lines.pop(message)
            hidden = len(others) - _MAX_LINES
            more = ", ".join(others[:_MAX_LINES]) + (f" and {hidden} more" if hidden > 0 else "")
            text = message.replace(":{}: ", f":{first}: ", 1)
            yield fail("data", text + (f" (also line{'s' if len(others) > 1 else ''} {more})" if more else ""))
        if rest := sum(map(len, self.lines.values())):
            yield fail("data", f"and {rest} more invalid rows", odd_rows=rest)


def read_with_errors(config: Config) -> tuple[Dataset | None, RowErrors]:
    """Return the data without the rows that a run would reject, or None if it cannot be read, and the errors."""
    errors = RowErrors()
    try:
        return load_dataset(config.dataset, errors.add), errors
    except InputError as error:
        errors.add(str(error))
        return None, errors


def data_findings(data: Dataset) -> Iterator[Finding]:
    """Yield the class counts, warnings and majority baseline of a data set."""
    stats = analyze(data)
    yield from (ok("data", text) for text in data.notes)
    yield from _counts(data, stats)
    for text in left_out(data):
        yield ok("data", text)
    for text in stats.suspicions:
        yield warn("data", text)
    if data.folds is not None:
        yield from _fold_findings(data, data.folds)
    warnings = dataset_warnings(stats)
    for text in warnings:
        yield warn("data", text)
    for name, split in stats.splits.items():
        if split.identical_sentences:
            lines = format_lines(split, "identical_sentences")
            yield warn("data", f"{name}: {split.identical_sentences} pairs of a sentence with itself ({lines})")
    for line in skipped_checks(stats):
        yield ok("data", line)
    if not stats.streamed and not warnings:
        yield ok("data", "no repeated, contradictory or shared pairs")
    yield _baseline(data, stats.splits["dev"].label_counts)


def _counts(data: Dataset, stats: DatasetStats) -> Iterator[Finding]:
    for name, split in stats.splits.items():
        shares = ", ".join(
            f"{label!r} {count} ({count / split.pairs:.1%})"
            for label, count in zip(data.labels, split.label_counts, strict=True)
        )
        labelled = shares if sum(split.label_counts) else "no labels"
        positive = f"; {data.labels[1]!r} counts as positive" if name == "dev" and len(data.labels) == 2 else ""
        yield ok(
            "data",
            f"{name}: {split.pairs} pairs; {labelled}{positive}",
            split=name,
            pairs=split.pairs,
            labels=dict(zip(data.labels, split.label_counts, strict=True)),
            **({"left_out": counts} if (counts := data.left_out().get(name)) else {}),
            **({} if name in stats.streamed else _quality_facts(name, split, stats)),
        )


def _fold_findings(data: Dataset, folds: Folds) -> Iterator[Finding]:
    """Report how balanced the folds are, and how many pairs dev shares with train."""
    sizes = folds.label_counts.sum(axis=1)
    shares = folds.label_counts / sizes[:, None]
    label_shares = ", ".join(
        f"{label!r} {share.min():.1%} to {share.max():.1%}" for label, share in zip(data.labels, shares.T, strict=False)
    )
    yield ok(
        "data",
        f"{folds.count} folds of {folds.pairs.file}: {sizes.min()} to {sizes.max()} pairs; {label_shares}; "
        f"largest group in one fold: {folds.largest_group} pairs; dataset.dev_file is not read",
        sizes=sizes.tolist(),
        labels=folds.label_counts.tolist(),
        largest_group=folds.largest_group,
        groups=len(set(folds.groups.tolist())),
    )
    for text in fold_lines(data):
        yield (warn if folds.leaked_pairs else ok)("data", text, pairs_met=folds.leaked_pairs)


def _quality_facts(name: str, split: SplitStats, stats: DatasetStats) -> dict[str, object]:
    shared = {(b if a == name else a): count for (a, b), count in stats.shared.items() if name in (a, b)}
    return {
        "exact_duplicates": split.exact_duplicates,
        "swapped_duplicates": split.swapped_duplicates,
        "contradictions": split.contradictions,
        "identical_sentences": split.identical_sentences,
        "shared_with": shared,
        "first_lines": split.lines,
    }


def _baseline(data: Dataset, counts: list[int]) -> Finding:
    """Report the accuracy of the majority class, and the smallest difference in accuracy that dev can resolve."""
    majority, total = max(counts) / sum(counts), sum(counts)
    error = math.sqrt(majority * (1 - majority) / total)
    label, difference = data.labels[counts.index(max(counts))], 1.96 * math.sqrt(2) * error
    return ok(
        "data",
        f"dev: always predicting {label!r} scores {majority:.2%}; one standard error is {error:.2%}, so "
        f"accuracies that differ by less than about {difference:.1%} are not distinguishable (unpaired, 95%)",
        majority_label=label,
        majority_accuracy=majority,
        standard_error=error,
        minimal_detectable_difference=difference,
    )
