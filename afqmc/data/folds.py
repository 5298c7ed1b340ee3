"""Stratified, grouped k-fold cross-validation: split a labelled file into folds of similar size and class counts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heapreplace

import numpy as np

from afqmc.data.columns import Ints, Texts, to_column
from afqmc.data.config import DatasetConfig
from afqmc.data.pairs import Pairs, label_texts, sentences_digest, update_digest
from afqmc.utils.errors import InputError, elide

_Array = np.ndarray

_MAX_DEVIATION = 0.2  # of a fold's size and class counts from their means, relative to the mean
_MIN_DEVIATION = 2  # pairs; a smaller deviation is always allowed


@dataclass(frozen=True)
class Folds:
    """The folds of a file, and which of them is the run's dev.

    Attributes:
        pairs: All N pairs of the file.
        fold_ids: The fold of each pair, (N,).
        groups: The group of each pair, (N,). Pairs connected by shared sentences form a group, or each pair is its own.
        count: Number of folds.
        fold: The fold that is dev, from 0.
        max_dev: Maximum number of pairs in dev, from the start of the fold; None for all.
    """

    pairs: Pairs
    fold_ids: _Array
    groups: _Array
    count: int
    fold: int
    max_dev: int | None = None

    @cached_property
    def label_counts(self) -> _Array:
        """Pairs per fold and class, (folds, classes)."""
        return _count_labels(self.fold_ids, np.asarray(self.pairs.labels))

    @property
    def largest_group(self) -> int:
        """Number of pairs in the largest group."""
        return int(np.bincount(self.groups).max())

    @cached_property
    def dev(self) -> Pairs:
        """The dev fold, in the file's order, limited to ``max_dev`` pairs."""
        name = f"{self.pairs.file} (fold {self.fold} of {self.count})"
        return self.pairs.select(np.flatnonzero(self.fold_ids == self.fold)[: self.max_dev], name)

    @cached_property
    def train(self) -> Pairs:
        """The other folds, in the file's order."""
        return self.pairs.select(np.flatnonzero(self.fold_ids != self.fold), self.pairs.file)

    @cached_property
    def leaked_pairs(self) -> int:
        """Number of dev pairs with a sentence that also occurs in train; 0 if pairs are grouped by sentence."""
        train, dev = (
            [Texts.of(split.sentence1).hashes, Texts.of(split.sentence2).hashes] for split in (self.train, self.dev)
        )
        return int(np.isin(dev, np.concatenate(train)).any(axis=0).sum())

    def as_dict(self) -> dict[str, object]:
        """Return the entry for summary.json, which identifies the dev fold."""
        digests = {"sha256": self.digest, "sentences_sha256": sentences_digest(self.pairs)}
        return {"fold": self.fold, "folds": self.count, "pairs": len(self.fold_ids), **digests}

    @property
    def digest(self) -> str:
        """The sha256 of all pairs and labels, equal for runs on folds of the same file."""
        return labelled_digest(self.pairs)


def labelled_digest(pairs: Pairs) -> str:
    """Return the sha256 of sentences and labels, in order."""
    digest = hashlib.sha256()
    for column in (pairs.sentence1, pairs.sentence2, label_texts(pairs.labels)):
        update_digest(digest, column)
    return digest.hexdigest()


def make_folds(pairs: Pairs, config: DatasetConfig, names: tuple[str, ...]) -> Folds:
    """Split a labelled file as the keys ``num_folds``, ``split_seed`` and ``group_by_sentence`` say.

    Args:
        pairs: The pairs of the file.
        config: The dataset group, with ``num_folds`` set.
        names: The class names.

    Raises:
        InputError: for repeated ids, or if the folds would be uneven; with the counts.
    """
    assert config.num_folds is not None
    assert config.fold is not None
    _reject_repeated_ids(pairs)
    _reject_rare_classes(pairs, config.num_folds, names)
    groups = connected_groups(pairs.sentence1, pairs.sentence2) if config.group_by_sentence else np.arange(len(pairs))
    fold_ids = assign_folds(groups, np.asarray(pairs.labels), config.num_folds, config.split_seed)
    folds = Folds(pairs, fold_ids, groups, config.num_folds, config.fold, config.max_dev_samples)
    _reject_uneven(folds, config.group_by_sentence)
    return folds


def connected_groups(sentence1: Sequence[str], sentence2: Sequence[str]) -> _Array:
    """Return the group of each pair, (N,): connected components of the graph of sentences whose edges are the pairs.

    Sentences are compared by their hashes. They are numbered in the order of their first occurrence, which decides the
    numbers of the groups.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    hashes = np.concatenate([Texts.of(sentence1).hashes, Texts.of(sentence2).hashes])
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    ends = np.argsort(np.argsort(first))[number].reshape(2, -1)
    edges = coo_array((np.ones(len(sentence1)), (ends[0], ends[1])), shape=(len(first), len(first)))
    component: _Array = connected_components(edges, directed=False)[1]
    groups: _Array = np.take(component, ends[0])
    return groups


def assign_folds(groups: _Array, labels: _Array, folds: int, seed: int) -> _Array:
    """Return the fold of each pair, (N,), such that folds are similar in size and class counts.

    Groups are assigned greedily from the largest to the smallest, in random order among groups with equal class counts.
    Each goes to the fold that keeps the sum of squared counts over folds and classes smallest; on a tie, to the
    smallest fold.

    The result is the same on every machine and in later versions, because counts are integers and NumPy keeps the
    RandomState stream fixed (NEP 19). Evaluating a saved run relies on that: it must use the fold that was held out.
    scikit-learn's StratifiedGroupKFold compares sums of floats, and takes 6 s for AFQMC's 33,455 groups. A test checks
    that these folds are at least as even.

    Args:
        groups: The group of each pair, from 0, (N,).
        labels: Class indices, (N,).
        folds: Number of folds.
        seed: Seed of the random order.
    """
    counts = _count_labels(groups, labels)
    order = np.random.RandomState(seed).permutation(len(counts))
    order = order[np.lexsort((*counts[order].T, -counts[order].sum(axis=1)))]
    is_new = (np.diff(counts[order], axis=0) != 0).any(axis=1)
    fold_counts = np.zeros((folds, counts.shape[1]), np.int64)
    fold_of_group = np.empty(len(counts), np.int64)
    for equal in np.split(order, np.flatnonzero(is_new) + 1):  # groups with equal class counts
        count = counts[equal[0]]
        chosen = _smallest_folds(fold_counts @ count, fold_counts.sum(axis=1), count, len(equal))
        fold_counts += np.bincount(chosen, minlength=folds)[:, None] * count
        fold_of_group[equal] = chosen
    return np.take(fold_of_group, groups)


def _smallest_folds(products: _Array, sizes: _Array, count: _Array, groups: int) -> list[int]:
    """Return the folds of groups with equal class counts, one after another: each time the fold that is smallest.

    Args:
        products: The class counts of each fold times those of a group; smaller ones add less to the squares.
        sizes: Pairs of each fold, which decide ties; further ties go to the first fold.
        count: Class counts of each group.
        groups: How many groups.
    """
    grown, added = int(count @ count), int(count.sum())
    heap = [
        (product, size, fold)
        for fold, (product, size) in enumerate(zip(products.tolist(), sizes.tolist(), strict=True))
    ]
    heapify(heap)
    chosen = []
    for _ in range(groups):
        product, size, fold = heap[0]
        heapreplace(heap, (product + grown, size + added, fold))
        chosen.append(fold)
    return chosen


def _count_labels(ids: _Array, labels: _Array) -> _Array:
    """Return the number of pairs per fold or group and class, (ids, classes)."""
    counts = np.zeros((ids.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (ids, labels), 1)
    return counts


def _reject_repeated_ids(pairs: Pairs) -> None:
    """Check that ids are unique, because the predictions of several folds are combined by id."""
    ids = to_column(pairs.ids)
    keys = ids.array if isinstance(ids, Ints) else ids.hashes if isinstance(ids, Texts) else None
    if keys is not None:
        ascending = np.sort(keys)
        if (ascending[1:] != ascending[:-1]).all():
            return
    seen: dict[int | str, int] = {}
    for row, pair_id in enumerate(pairs.ids):
        if (first := seen.setdefault(pair_id, row)) != row:
            raise InputError(
                f"{pairs.file}:{pairs.line(row)}: the id {pair_id!r} is in line {pairs.line(first)} too; "
                "dataset.num_folds needs unique ids (dataset.id_field names their column; without ids, rows are "
                "numbered)"
            )


def _reject_rare_classes(pairs: Pairs, folds: int, names: tuple[str, ...]) -> None:
    """Check that every class has a pair for each fold."""
    for name, count in zip(names, np.bincount(np.asarray(pairs.labels), minlength=len(names)), strict=True):
        if 0 < count < folds:
            raise InputError(
                f"dataset.num_folds={folds}: each fold needs a pair of every class, and {pairs.file} has {count} "
                f"labelled {name!r}"
            )


def _reject_uneven(folds: Folds, grouped: bool) -> None:
    """Check that the folds are similar in size and class counts."""
    sizes = np.bincount(folds.fold_ids, minlength=folds.count)
    by_class = np.zeros((folds.count, folds.label_counts.shape[1]), np.int64)
    by_class[: len(folds.label_counts)] = folds.label_counts
    columns = np.column_stack([by_class, sizes])
    mean = columns.mean(axis=0)
    is_even = (abs(columns - mean) <= np.maximum(_MAX_DEVIATION * mean, _MIN_DEVIATION)).all()
    if is_even and (by_class.min(axis=0)[mean[:-1] > 0] > 0).all():
        return
    shown = elide(", ".join(" + ".join(map(str, row)) for row in by_class.tolist()))
    message = (
        f"dataset.num_folds={folds.count}: no even folds of {folds.pairs.file}: their class counts would be {shown}"
    )
    if grouped:
        message += (
            f"; the largest group of pairs connected by shared sentences has {folds.largest_group} of "
            f"{len(folds.fold_ids)} pairs; dataset.group_by_sentence=false splits such groups, and dev then "
            "shares sentences with train"
        )
    if 2 * folds.largest_group <= len(folds.fold_ids):
        message += "; fewer folds may work"
    raise InputError(message)
