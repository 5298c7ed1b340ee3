"""Check the quality of a data set: duplicates, contradictory labels, pairs shared by splits, rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from afqmc.data.columns import Texts, combine_hashes
from afqmc.data.label_checks import label_warnings
from afqmc.data.loading import Dataset, Pairs, PairStream

_SHOWN = 5  # lines per kind of problem, at most
_RARE = 10  # a class with fewer pairs, and less than 1% of them, may be a typo


@dataclass(frozen=True)
class SplitStats:
    """Counts of one split. ``lines`` has the first few line numbers of ``file`` per kind of problem."""

    pairs: int
    label_counts: list[int]
    exact_duplicates: int
    swapped_duplicates: int
    contradictions: int
    identical_sentences: int
    lines: dict[str, list[int]]
    file: str = ""


@dataclass(frozen=True)
class DatasetStats:
    """Counts of all splits.

    Attributes:
        splits: Counts per split.
        shared: Number of pairs that two splits share, in either order of the sentences.
        streamed: Splits that are streamed, for which only labels are counted.
        labels: Class names.
        suspicions: Warnings from ``label_warnings``.
    """

    splits: dict[str, SplitStats]
    shared: dict[tuple[str, str], int]
    streamed: tuple[str, ...]
    labels: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()


def analyze(dataset: Dataset) -> DatasetStats:
    """Count labels and problems. For a streamed split only labels are counted, since it does not fit into memory.

    Sentences are compared by their hashes, see ``Texts.hashes``.
    """
    in_memory = {name: split for name, split in dataset.splits().items() if isinstance(split, Pairs)}
    keys = {name: np.unique(unordered_hashes(split)) for name, split in in_memory.items()}
    stats = {name: _split_stats(dataset, split) for name, split in in_memory.items()}
    streamed = {name: split for name, split in dataset.splits().items() if isinstance(split, PairStream)}
    for name, stream in streamed.items():
        stats[name] = SplitStats(len(stream), stream.label_counts, 0, 0, 0, 0, {}, stream.file)
    shared = {(a, b): len(np.intersect1d(keys[a], keys[b], assume_unique=True)) for a, b in combinations(in_memory, 2)}
    return DatasetStats(stats, shared, tuple(streamed), dataset.labels, tuple(label_warnings(dataset)))


def _hashes(split: Pairs) -> tuple[np.ndarray, np.ndarray]:
    return Texts.of(split.sentence1).hashes, Texts.of(split.sentence2).hashes


def unordered_hashes(split: Pairs) -> np.ndarray:
    """Return a hash of each pair, int64 (N,), that does not depend on the order of its sentences."""
    first, second = _hashes(split)
    return combine_hashes(np.minimum(first, second), np.maximum(first, second))


def _split_stats(dataset: Dataset, split: Pairs) -> SplitStats:
    first, second = _hashes(split)
    repeated, swapped = _repetitions(combine_hashes(first, second), combine_hashes(second, first))
    contradictions, contradictory = _contradictions(unordered_hashes(split), split.labels)
    rows = {
        "exact_duplicates": np.flatnonzero(repeated),
        "swapped_duplicates": np.flatnonzero(swapped),
        "identical_sentences": np.flatnonzero(first == second),
        "contradictions": contradictory,
    }
    return SplitStats(
        pairs=len(split),
        label_counts=dataset.label_counts(split),
        exact_duplicates=len(rows["exact_duplicates"]),
        swapped_duplicates=len(rows["swapped_duplicates"]),
        contradictions=contradictions,
        identical_sentences=len(rows["identical_sentences"]),
        lines={
            kind: [split.line(row) for row in some[: _SHOWN + 1].tolist()] for kind, some in rows.items() if len(some)
        },
        file=split.file,
    )


def _repetitions(pairs: np.ndarray, swapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs occur before, bool (N,), and which of the others occur before with swapped sentences.

    Args:
        pairs: A hash of each pair, int64 (N,).
        swapped: The hash of the pair (b, a), int64 (N,).
    """
    rows = np.arange(len(pairs))
    known, first = np.unique(pairs, return_index=True)
    is_first = np.zeros(len(pairs), bool)
    is_first[first] = True
    place = np.minimum(np.searchsorted(known, swapped), len(known) - 1)
    return ~is_first, is_first & (known[place] == swapped) & (first[place] < rows)


def _contradictions(keys: np.ndarray, labels: Sequence[int] | None) -> tuple[int, np.ndarray]:
    """Return the number of different pairs with several labels, and the rows of these pairs."""
    if labels is None:
        return 0, np.empty(0, np.int64)
    order = np.argsort(keys, kind="stable")
    ascending, of_pair = keys[order], np.asarray(labels)[order]
    begins = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))  # of each group of equal pairs
    several = np.minimum.reduceat(of_pair, begins) != np.maximum.reduceat(of_pair, begins)
    sizes = np.diff(np.append(begins, len(keys)))
    return int(several.sum()), np.sort(order[np.repeat(several, sizes)])


def summary_lines(dataset: Dataset, stats: DatasetStats) -> list[str]:
    """Return the lines that a run prints at its start: one with the counts, and one per note or warning."""
    counts = []
    for name, split in stats.splits.items():
        shares = [
            f"{100 * count / split.pairs:.0f}% {label!r}"
            for label, count in zip(dataset.labels, split.label_counts, strict=True)
        ]
        counts.append(f"{name} {split.pairs}" + (f" ({', '.join(shares)})" if sum(split.label_counts) else ""))
    positive = f"; {dataset.labels[1]!r} counts as positive" if len(dataset.labels) == 2 else ""
    lines = [f"data: {dataset.name}: " + "; ".join(counts) + positive]
    notes = (*dataset.notes, *left_out(dataset), *fold_lines(dataset), *skipped_checks(stats), *dataset_warnings(stats))
    lines += [f"data: {text}" for text in notes]
    return lines


def skipped_checks(stats: DatasetStats) -> list[str]:
    """Return a line on the checks that a streamed split does not get; none without one."""
    if not stats.streamed:
        return []
    return [f"{', '.join(stats.streamed)} is streamed: not checked for repeated or shared pairs"]


def left_out(dataset: Dataset) -> list[str]:
    """Return a line per file with dropped rows, and per file that counts as unlabelled."""
    return [f"{split}: {text}" for split, report in dataset.reports().items() for text in report.other_rows()]


def fold_lines(dataset: Dataset) -> list[str]:
    """Return a line on the dev fold and the sentences it shares with train; none without folds."""
    if (folds := dataset.folds) is None:
        return []
    leaks = "it shares no sentence with train"
    if folds.leaked_pairs:
        hint = "dataset.group_by_sentence=true prevents it"
        leaks = f"{folds.leaked_pairs} of its pairs share a sentence with train ({hint})"
    return [f"dev is fold {folds.fold} of {folds.count} (from 0) of {folds.pairs.file}: {leaks}"]


def dataset_warnings(stats: DatasetStats) -> list[str]:
    """Return a line for each problem that may distort the metrics."""
    lines = _rare_labels(stats)
    for name, split in stats.splits.items():
        problems = (
            ("exact_duplicates", split.exact_duplicates, "repeated pairs"),
            ("swapped_duplicates", split.swapped_duplicates, "pairs repeated with the sentences swapped"),
            ("contradictions", split.contradictions, "pairs with contradictory labels"),
        )
        lines += [f"{name}: {count} {text} ({format_lines(split, kind)})" for kind, count, text in problems if count]
    lines += [f"{a} and {b} share {count} pairs" for (a, b), count in stats.shared.items() if count]
    return lines


def format_lines(split: SplitStats, kind: str) -> str:
    """Return the lines with a kind of problem, such as ``lines 3, 7 of train.jsonl``."""
    lines = split.lines[kind]
    more = " ..." if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:_SHOWN]))}{more} of {split.file}"


def _rare_labels(stats: DatasetStats) -> list[str]:
    """Return a line for each label with suspiciously few training pairs, and for each that is absent from dev."""
    lines = []
    train, dev = stats.splits["train"].label_counts, stats.splits["dev"].label_counts
    for label, in_train, in_dev in zip(stats.labels, train, dev, strict=True):
        if in_train < _RARE and in_train < sum(train) / 100:
            count = f"only {in_train} of {sum(train)} pairs are" if in_train else "no pair is"
            lines.append(f"train: {count} labelled {label!r}; a typo? (dataset.labels=[...] sets the classes)")
        if in_train and not in_dev:
            lines.append(f"dev: no pair is labelled {label!r}, which train has; no metric shows how well it is learned")
    return lines
