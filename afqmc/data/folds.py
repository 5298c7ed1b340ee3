"""k-fold: a labelled file cut into folds that are alike in size and classes, whole groups of pairs at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import numpy as np

from afqmc.data.config import DatasetConfig
from afqmc.data.pairs import Pairs, update_digest
from afqmc.utils.errors import InputError, elide

Array = np.ndarray

_UNEVEN = 0.2  # share of a fold's mean size, or of its mean count of a class, by which it may differ
_FEW = 2  # pairs by which it may differ in any case


@dataclass(frozen=True)
class Folds:
    """How a file was cut, and which part of it is a run's dev.

    Attributes:
        whole: All pairs of the file.
        of: The fold of each, (N,).
        groups: The number of each one's group, (N,): of pairs that hang together by sentences, or of its own.
        count: How many folds there are.
        fold: The one that is dev.
        most: Pairs of it that dev holds at most, the first ones; None for all.
    """

    whole: Pairs
    of: Array
    groups: Array
    count: int
    fold: int
    most: Optional[int] = None

    @cached_property
    def label_counts(self) -> Array:
        """Pairs of each class in each fold, (folds, classes)."""
        return _counts(self.of, np.asarray(self.whole.labels))

    @property
    def largest_group(self) -> int:
        """Pairs of the largest group."""
        return int(np.bincount(self.groups).max())

    @cached_property
    def dev(self) -> Pairs:
        """The fold, in the file's order; cut at ``max_dev_samples``."""
        name = f"{self.whole.file} (fold {self.fold} of {self.count})"
        return self.whole.select(np.flatnonzero(self.of == self.fold)[: self.most].tolist(), name)

    @cached_property
    def train(self) -> Pairs:
        """The other folds, in the file's order."""
        return self.whole.select(np.flatnonzero(self.of != self.fold).tolist(), self.whole.file)

    @cached_property
    def met(self) -> int:
        """Pairs of dev that hold a sentence which train holds too; 0 where groups hang together by sentences."""
        known = {*self.train.sentence1, *self.train.sentence2}
        pairs = zip(self.dev.sentence1, self.dev.sentence2, strict=True)
        return sum(one in known or other in known for one, other in pairs)

    def as_dict(self) -> dict[str, object]:
        """For summary.json: which part of what the run's dev was."""
        return {"fold": self.fold, "folds": self.count, "pairs": len(self.of), "sha256": self.digest}

    @property
    def digest(self) -> str:
        """sha256 of all pairs and their labels: the same for runs whose folds belong together."""
        found = hashlib.sha256()
        for column in (self.whole.sentence1, self.whole.sentence2, [str(label) for label in self.whole.labels or ()]):
            update_digest(found, column)
        return found.hexdigest()


def make_folds(whole: Pairs, config: DatasetConfig, names: tuple[str, ...]) -> Folds:
    """Cut a labelled file as ``dataset.folds``, ``fold_seed`` and ``grouped`` say; ``names`` are its classes.

    Raises:
        InputError: where ids repeat, or no even folds can be had; with the figures.
    """
    assert config.folds is not None
    assert config.fold is not None
    _refuse_repeated_ids(whole)
    _refuse_rare(whole, config.folds, names)
    groups = connected_groups(whole.sentence1, whole.sentence2) if config.grouped else np.arange(len(whole))
    of = assign_folds(groups, np.asarray(whole.labels), config.folds, config.fold_seed)
    found = Folds(whole, of, groups, config.folds, config.fold, config.max_dev_samples)
    _refuse_uneven(found, config.grouped)
    return found


def connected_groups(sentence1: list[str], sentence2: list[str]) -> Array:
    """The number of each pair's component, (N,): pairs that share a sentence, directly or by way of others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: dict[str, int] = {}
    ends = [[number.setdefault(text, len(number)) for text in column] for column in (sentence1, sentence2)]
    edges = coo_array((np.ones(len(sentence1)), ends), shape=(len(number), len(number)))
    component: Array = connected_components(edges, directed=False)[1]
    return np.take(component, ends[0])


def assign_folds(groups: Array, labels: Array, folds: int, seed: int) -> Array:
    """The fold of each pair, (N,): groups from the largest to the smallest, those alike in classes in random order.

    Each goes to the fold for which the sum of squares of all counts, by fold and class, stays least; of several, to the
    smallest. Counts are whole numbers and NumPy promises that RandomState stays as it is (NEP 19), so that a division
    is the same on every machine and in later versions: a run is evaluated on the fold that it was not trained on.
    scikit-learn's StratifiedGroupKFold goes by sums of floats instead, and takes 6 s for AFQMC's 33,455 groups; a test
    holds the evenness to its.

    Args:
        groups: Number of each pair's group, from 0, (N,).
        labels: Class indices, (N,).
        folds: How many.
        seed: Of the order.
    """
    counts = _counts(groups, labels)
    order = np.random.RandomState(seed).permutation(len(counts))
    order = order[np.lexsort((*counts[order].T, -counts[order].sum(axis=1)))]
    held = np.zeros((folds, counts.shape[1]), np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for group in order:
        least = int(np.lexsort((held.sum(axis=1), held @ counts[group]))[0])
        held[least] += counts[group]
        fold_of[group] = least
    return np.take(fold_of, groups)


def _counts(kinds: Array, labels: Array) -> Array:
    """How many of each kind have each class."""
    found = np.zeros((kinds.max() + 1, labels.max() + 1), np.int64)
    np.add.at(found, (kinds, labels), 1)
    return found


def _refuse_repeated_ids(pairs: Pairs) -> None:
    """Predictions of the folds are put together by ids."""
    seen: dict[int | str, int] = {}
    for row, identity in enumerate(pairs.ids):
        if (first := seen.setdefault(identity, row)) != row:
            raise InputError(
                f"{pairs.file}:{pairs.line(row)}: the id {identity!r} is in line {pairs.line(first)} too; with "
                "dataset.folds each pair needs its own (dataset.id_field names them; without ids rows are counted)"
            )


def _refuse_rare(pairs: Pairs, folds: int, names: tuple[str, ...]) -> None:
    """A fold without a class could not tell how well it is learnt."""
    for name, count in zip(names, np.bincount(np.asarray(pairs.labels), minlength=len(names)), strict=True):
        if 0 < count < folds:
            told = f"each fold needs a pair of every class, and {pairs.file} has {count} labelled {name!r}"
            raise InputError(f"dataset.folds={folds}: {told}")


def _refuse_uneven(found: Folds, grouped: bool) -> None:
    """Folds that are too unlike to be called folds of one file."""
    counts = np.bincount(found.of, minlength=found.count)
    table = np.zeros((found.count, found.label_counts.shape[1]), np.int64)
    table[: len(found.label_counts)] = found.label_counts
    columns = np.column_stack([table, counts])
    mean = columns.mean(axis=0)
    if (table.min(axis=0)[mean[:-1] > 0] > 0).all() and (abs(columns - mean) <= np.maximum(_UNEVEN * mean, _FEW)).all():
        return
    sizes = elide(", ".join(" + ".join(map(str, row)) for row in table.tolist()))
    told = f"dataset.folds={found.count}: no even folds of {found.whole.file}: by class they would have {sizes} pairs"
    if grouped:
        told += (
            f"; the largest set of pairs that hang together by shared sentences has {found.largest_group} of "
            f"{len(found.of)}; dataset.grouped=false tears such sets apart, and train then knows sentences of dev"
        )
    if 2 * found.largest_group <= len(found.of):
        told += "; fewer folds may do"
    raise InputError(told)
