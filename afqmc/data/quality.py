"""What a data set holds that a person should know before training on it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

from afqmc.data.label_checks import label_warnings
from afqmc.data.loading import Dataset, Pairs, PairStream

_SHOWN = 5  # lines named of each kind, at most
_RARE = 10  # pairs: fewer of a class, and less than one in a hundred, may be a slip


@dataclass(frozen=True)
class SplitStats:
    """Counts of one split. ``where`` has a few line numbers of ``file`` for each kind of oddity."""

    pairs: int
    label_counts: list[int]
    exact_duplicates: int
    swapped_duplicates: int
    contradictions: int
    identical_sentences: int
    where: dict[str, list[int]]
    file: str = ""


@dataclass(frozen=True)
class DatasetStats:
    """Of all splits held in memory, the pairs that two of them share, in either order, and what looks wrong."""

    splits: dict[str, SplitStats]
    shared: dict[tuple[str, str], int]
    streamed: tuple[str, ...]
    labels: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()


def analyze(dataset: Dataset) -> DatasetStats:
    """Count. A streamed split is counted by label alone, since comparing its pairs would hold it in memory."""
    held = {name: split for name, split in dataset.splits().items() if isinstance(split, Pairs)}
    keys = {name: set(_unordered(split)) for name, split in held.items()}
    facts = {name: _split_facts(dataset, split) for name, split in held.items()}
    streamed = {name: split for name, split in dataset.splits().items() if isinstance(split, PairStream)}
    for name, stream in streamed.items():
        facts[name] = SplitStats(len(stream), stream.label_counts, 0, 0, 0, 0, {}, stream.file)
    shared = {(one, other): len(keys[one] & keys[other]) for one, other in combinations(held, 2)}
    return DatasetStats(facts, shared, tuple(streamed), dataset.labels, tuple(label_warnings(dataset)))


def _unordered(split: Pairs) -> list[tuple[str, str]]:
    """Each pair with its sentences sorted: the same key either way round."""
    return [(a, b) if a <= b else (b, a) for a, b in zip(split.sentence1, split.sentence2, strict=True)]


def _split_facts(dataset: Dataset, split: Pairs) -> SplitStats:
    seen: set[tuple[str, str]] = set()
    classes: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    rows: dict[str, list[int]] = {"exact_duplicates": [], "swapped_duplicates": [], "identical_sentences": []}
    keys = _unordered(split)
    for row, (key, first, second) in enumerate(zip(keys, split.sentence1, split.sentence2, strict=True)):
        if (first, second) in seen:
            rows["exact_duplicates"].append(row)
        elif (second, first) in seen:
            rows["swapped_duplicates"].append(row)
        seen.add((first, second))
        if first == second:
            rows["identical_sentences"].append(row)
        if split.labels is not None:
            classes[key].add(split.labels[row])
    torn = {key for key, found in classes.items() if len(found) > 1}
    rows["contradictions"] = [row for row, key in enumerate(keys) if key in torn] if torn else []
    return SplitStats(
        pairs=len(split),
        label_counts=dataset.label_counts(split),
        exact_duplicates=len(rows["exact_duplicates"]),
        swapped_duplicates=len(rows["swapped_duplicates"]),
        contradictions=len(torn),
        identical_sentences=len(rows["identical_sentences"]),
        where={kind: [split.line(row) for row in found[: _SHOWN + 1]] for kind, found in rows.items() if found},
        file=split.file,
    )


def summary_lines(dataset: Dataset, facts: DatasetStats) -> list[str]:
    """The lines a run prints at its start: one of counts, and one for each thing to worry about."""
    counts = []
    for name, found in facts.splits.items():
        shares = [
            f"{100 * n / found.pairs:.0f}% {label!r}"
            for label, n in zip(dataset.labels, found.label_counts, strict=True)
        ]
        counts.append(f"{name} {found.pairs}" + (f" ({', '.join(shares)})" if sum(found.label_counts) else ""))
    positive = f"; {dataset.labels[1]!r} counts as positive" if len(dataset.labels) == 2 else ""
    lines = [f"data: {dataset.name}: " + "; ".join(counts) + positive]
    notes = (*dataset.notes, *left_out(dataset), *fold_lines(dataset), *dataset_warnings(facts))
    lines += [f"data: {text}" for text in notes]
    return lines


def left_out(dataset: Dataset) -> list[str]:
    """The rows of each file that the config leaves out, and files without labels."""
    return [f"{split}: {text}" for split, report in dataset.reports().items() for text in report.other_rows()]


def fold_lines(dataset: Dataset) -> list[str]:
    """What dev is a fold of, and whether train knows sentences of it; nothing where there are no folds."""
    if (folds := dataset.folds) is None:
        return []
    told = f"{folds.met} of its pairs hold a sentence that train holds too (dataset.grouped)" if folds.met else ""
    told = told or "no sentence of it is in train"
    return [f"dev is fold {folds.fold} of {folds.count} (from 0) of {folds.whole.file}: {told}"]


def dataset_warnings(facts: DatasetStats) -> list[str]:
    """A sentence for each oddity that may change what a figure means."""
    lines = _odd_labels(facts)
    for name, found in facts.splits.items():
        kinds = (
            ("exact_duplicates", found.exact_duplicates, "repeated pairs"),
            ("swapped_duplicates", found.swapped_duplicates, "pairs repeated with the sentences swapped"),
            ("contradictions", found.contradictions, "pairs with contradictory labels"),
        )
        lines += [f"{name}: {count} {text} ({format_lines(found, kind)})" for kind, count, text in kinds if count]
    lines += [f"{one} and {other} share {count} pairs" for (one, other), count in facts.shared.items() if count]
    return lines


def format_lines(found: SplitStats, kind: str) -> str:
    """Where the rows of a kind are: ``lines 3, 7 of train.jsonl``."""
    lines = found.where[kind]
    more = " ..." if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:_SHOWN]))}{more} of {found.file}"


def _odd_labels(facts: DatasetStats) -> list[str]:
    """Classes that may be a slip of the pen, or that dev says nothing about."""
    lines = []
    counts = {name: found.label_counts for name, found in facts.splits.items()}
    for number, label in enumerate(facts.labels):
        there, seen = counts["train"][number], counts["dev"][number]
        if there < _RARE and there < sum(counts["train"]) / 100:
            few = f"only {there} of {sum(counts['train'])} pairs" if there else "no pair"
            lines.append(f"train: {few} labelled {label!r}: is it a class? (dataset.labels=[...] sets them)")
        if there and not seen:
            lines.append(f"dev: no pair labelled {label!r}, which train has: no figure tells how well it is learnt")
    return lines
