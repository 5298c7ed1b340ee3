"""What a data set holds that a person should know before training on it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

from afqmc.dataset.splits import Dataset, Pairs, PairStream


@dataclass(frozen=True)
class SplitFacts:
    """Counts of one split. ``where`` has a few row numbers (from 1) for each kind of oddity."""

    pairs: int
    label_counts: list[int]
    exact_duplicates: int
    swapped_duplicates: int
    contradictions: int
    identical_sentences: int
    where: dict[str, list[int]]


@dataclass(frozen=True)
class Facts:
    """Of all splits held in memory, and the pairs that two of them share, in either order."""

    splits: dict[str, SplitFacts]
    shared: dict[tuple[str, str], int]
    streamed: tuple[str, ...]


def examine(dataset: Dataset) -> Facts:
    """Count. A streamed split is counted by label alone, since comparing its pairs would hold it in memory."""
    held = {name: split for name, split in dataset.splits().items() if isinstance(split, Pairs)}
    keys = {name: set(_unordered(split)) for name, split in held.items()}
    facts = {name: _split_facts(dataset, split) for name, split in held.items()}
    streamed = {name: split for name, split in dataset.splits().items() if isinstance(split, PairStream)}
    for name, stream in streamed.items():
        facts[name] = SplitFacts(len(stream), stream.label_counts, 0, 0, 0, 0, {})
    shared = {(one, other): len(keys[one] & keys[other]) for one, other in combinations(held, 2)}
    return Facts(facts, shared, tuple(streamed))


def _unordered(split: Pairs) -> list[tuple[str, str]]:
    """Each pair with its sentences sorted: the same key either way round."""
    return [(a, b) if a <= b else (b, a) for a, b in zip(split.sentence1, split.sentence2, strict=True)]


def _split_facts(dataset: Dataset, split: Pairs) -> SplitFacts:
    seen: dict[tuple[str, str], int] = {}
    classes: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    rows: dict[str, list[int]] = {"exact_duplicates": [], "swapped_duplicates": [], "identical_sentences": []}
    for number, (key, first, second) in enumerate(
        zip(_unordered(split), split.sentence1, split.sentence2, strict=True), 1
    ):
        if (first, second) in seen:
            rows["exact_duplicates"].append(number)
        elif (second, first) in seen:
            rows["swapped_duplicates"].append(number)
        seen.setdefault((first, second), number)
        if first == second:
            rows["identical_sentences"].append(number)
        if split.labels is not None:
            classes[key].add(split.labels[number - 1])
    torn = {key for key, found in classes.items() if len(found) > 1}
    rows["contradictions"] = [number for number, key in enumerate(_unordered(split), 1) if key in torn] if torn else []
    return SplitFacts(
        pairs=len(split),
        label_counts=dataset.label_counts(split),
        exact_duplicates=len(rows["exact_duplicates"]),
        swapped_duplicates=len(rows["swapped_duplicates"]),
        contradictions=len(torn),
        identical_sentences=len(rows["identical_sentences"]),
        where={kind: numbers[:5] for kind, numbers in rows.items() if numbers},
    )


def in_short(dataset: Dataset, facts: Facts) -> list[str]:
    """The lines a run prints at its start: one of counts, and one for each thing to worry about."""
    counts = []
    for name, found in facts.splits.items():
        shares = [
            f"{100 * n / found.pairs:.0f}% {label!r}"
            for label, n in zip(dataset.labels, found.label_counts, strict=True)
        ]
        counts.append(f"{name} {found.pairs}" + (f" ({', '.join(shares)})" if sum(found.label_counts) else ""))
    lines = [f"data: {dataset.name}: " + "; ".join(counts)]
    lines += [f"data: {text}" for text in worries(facts)]
    return lines


def worries(facts: Facts) -> list[str]:
    """A sentence for each oddity that may change what a figure means."""
    lines = []
    for name, found in facts.splits.items():
        kinds = (
            ("exact_duplicates", found.exact_duplicates, "repeated pairs"),
            ("swapped_duplicates", found.swapped_duplicates, "pairs repeated with the sentences swapped"),
            ("contradictions", found.contradictions, "pairs with contradictory labels"),
        )
        for kind, count, text in kinds:
            if count:
                rows = ", ".join(map(str, found.where[kind]))
                lines.append(f"{name}: {count} {text} (rows {rows}{' ...' if count > len(found.where[kind]) else ''})")
    lines += [f"{one} and {other} share {count} pairs" for (one, other), count in facts.shared.items() if count]
    return lines
