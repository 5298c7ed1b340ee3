"""What the doctor says of the data: every odd row, counts, repeats, leaks, and what dev can tell apart."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from afqmc.config import Config
from afqmc.data.folds import Folds
from afqmc.data.loading import Dataset, load_dataset
from afqmc.data.quality import DatasetStats, SplitStats, analyze, dataset_warnings, fold_lines, format_lines, left_out
from afqmc.diagnostics.findings import Finding, fail, ok, warn
from afqmc.utils.errors import InputError

_SHOWN = 8  # different complaints about rows, at most
_LINES = 5  # named for each, at most


class RowErrors:
    """What is wrong with rows, the same of several rows once."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}  # of each text, without the line in it

    def add(self, text: str) -> None:
        """One more."""
        before, line, after = (*re.split(r":(\d+): ", text, maxsplit=1), "", "")[:3]
        self.lines.setdefault(f"{before}:{{}}: {after}" if line else text, []).append(line)

    def findings(self) -> Iterator[Finding]:
        """A failure for each, and one for those that are not named."""
        for kind in list(self.lines)[:_SHOWN]:
            first, *others = self.lines.pop(kind)
            more = ", ".join(others[:_LINES]) + (f" and {len(others) - _LINES} more" if len(others) > _LINES else "")
            text = kind.replace(":{}: ", f":{first}: ", 1)
            yield fail(
                "data", text + (f" (so {'is line' if len(others) == 1 else 'are lines'} {more})" if more else "")
            )
        if rest := sum(map(len, self.lines.values())):
            yield fail("data", f"and {rest} more such rows", odd_rows=rest)


def read(config: Config) -> tuple[Dataset | None, RowErrors]:
    """The data without the rows that a run would stop at, and what is wrong with those; None if nothing is left."""
    complaints = RowErrors()
    try:
        return load_dataset(config.dataset, complaints.add), complaints
    except InputError as error:
        complaints.add(str(error))
        return None, complaints


def data_findings(data: Dataset) -> Iterator[Finding]:
    """Counts, worries, the majority baseline."""
    facts = analyze(data)
    yield from (ok("data", text) for text in data.notes)
    yield from _counts(data, facts)
    for text in left_out(data):
        yield ok("data", text)
    for text in facts.suspicions:
        yield warn("data", text)
    if data.folds is not None:
        yield from _of_folds(data, data.folds)
    told = dataset_warnings(facts)
    for text in told:
        yield warn("data", text)
    for name, found in facts.splits.items():
        if found.identical_sentences:
            where = format_lines(found, "identical_sentences")
            yield warn("data", f"{name}: {found.identical_sentences} pairs of a sentence with itself ({where})")
    if facts.streamed:
        yield ok("data", f"{', '.join(facts.streamed)} is streamed: repeats and shared pairs are not looked for in it")
    elif not told:
        yield ok("data", "no repeated, contradictory or shared pairs")
    yield _baseline(data, facts.splits["dev"].label_counts)


def _counts(data: Dataset, facts: DatasetStats) -> Iterator[Finding]:
    for name, found in facts.splits.items():
        shares = ", ".join(
            f"{label!r} {count} ({count / found.pairs:.1%})"
            for label, count in zip(data.labels, found.label_counts, strict=True)
        )
        labelled = shares if sum(found.label_counts) else "no labels"
        positive = f"; {data.labels[1]!r} counts as positive" if name == "dev" and len(data.labels) == 2 else ""
        yield ok(
            "data",
            f"{name}: {found.pairs} pairs; {labelled}{positive}",
            split=name,
            pairs=found.pairs,
            labels=dict(zip(data.labels, found.label_counts, strict=True)),
            **({"left_out": counts} if (counts := data.left_out().get(name)) else {}),
            **({} if name in facts.streamed else _oddities(name, found, facts)),
        )


def _of_folds(data: Dataset, folds: Folds) -> Iterator[Finding]:
    """How even the folds are, and what dev shares with train."""
    sizes = folds.label_counts.sum(axis=1)
    shares = folds.label_counts / sizes[:, None]
    of_labels = ", ".join(
        f"{label!r} {share.min():.1%} to {share.max():.1%}" for label, share in zip(data.labels, shares.T, strict=False)
    )
    yield ok(
        "data",
        f"{folds.count} folds of {folds.pairs.file}: {sizes.min()} to {sizes.max()} pairs; {of_labels}; pairs that "
        f"stay together: {folds.largest_group} at most; dataset.dev_file is not read",
        sizes=sizes.tolist(),
        labels=folds.label_counts.tolist(),
        largest_group=folds.largest_group,
        groups=len(set(folds.groups.tolist())),
    )
    for text in fold_lines(data):
        yield (warn if folds.leaked_pairs else ok)("data", text, pairs_met=folds.leaked_pairs)


def _oddities(name: str, found: SplitStats, facts: DatasetStats) -> dict[str, object]:
    shared = {
        (other if one == name else one): count for (one, other), count in facts.shared.items() if name in (one, other)
    }
    return {
        "exact_duplicates": found.exact_duplicates,
        "swapped_duplicates": found.swapped_duplicates,
        "contradictions": found.contradictions,
        "identical_sentences": found.identical_sentences,
        "shared_with": shared,
        "first_lines": found.lines,
    }


def _baseline(data: Dataset, counts: list[int]) -> Finding:
    """What always giving the same answer scores, and the difference that dev can show."""
    majority, total = max(counts) / sum(counts), sum(counts)
    error = math.sqrt(majority * (1 - majority) / total)
    label, difference = data.labels[counts.index(max(counts))], 1.96 * math.sqrt(2) * error
    return ok(
        "data",
        f"dev: always answering {label!r} scores {majority:.2%}; one standard error is {error:.2%}, so two runs whose "
        f"accuracies differ by less than about {difference:.1%} cannot be told apart by it (unpaired, 95%)",
        majority_label=label,
        majority_accuracy=majority,
        standard_error=error,
        minimal_detectable_difference=difference,
    )
