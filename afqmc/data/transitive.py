"""Add pairs that follow from the labels of others: a = b, b = c give a = c, and a = b, b != c give a != c.

Chen, Ji and Evans, "Finding Friends and Flipping Frenemies" (Findings of EMNLP 2020), train BERT with such pairs.
Their method also flips labels that contradict others; this one leaves their conclusions out instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from afqmc.data.pairs import Pairs
from afqmc.utils.errors import InputError, elide

_SAME = {
    *("1", "true", "yes", "y", "same", "similar", "paraphrase", "duplicate", "equivalent", "match", "positive"),
    *("是", "相同", "相似", "同义", "一致", "匹配"),
}  # names of the second class that mean "the same"

_Edge = tuple[int, int]  # two sentences, the smaller number first


@dataclass(frozen=True)
class TransitivePairs:
    """The pairs that follow from those of a split.

    Attributes:
        pairs: The new pairs, labelled.
        same: How many of them mean the same; the others do not.
        contradictory: Clusters of equal sentences left out, because two of their sentences are labelled different.
    """

    pairs: Pairs
    same: int
    contradictory: int


def check_means_same(labels: Sequence[str]) -> None:
    """Check that there are two classes, of which the second means that both sentences mean the same.

    Raises:
        InputError: with the labels, and the names that are allowed.
    """
    if len(labels) != 2 or labels[1].lower() not in _SAME:
        raise InputError(
            f"dataset.transitive=true: needs two classes, the second of which means the same; this data has "
            f"{elide(', '.join(labels))}, and names of that class are {', '.join(sorted(_SAME))} (dataset.labels sets "
            "the order)"
        )


def transitive_pairs(train: Pairs, others: Iterable[Pairs] = ()) -> TransitivePairs:
    """Return the pairs that follow from the labels of train.

    Equal sentences form clusters. A cluster adds at most as many pairs as train has in it, and two clusters add at most
    as many as train has between them. So a large cluster does not dominate, and train at most doubles. Pairs of train
    and of the other splits are never added.

    Args:
        train: Labelled pairs with the classes 0 (different) and 1 (same).
        others: Splits whose pairs are not added. Their labels are not used.
    """
    assert train.labels is not None
    node: dict[str, int] = {}
    for text in (text for pair in zip(train.sentence1, train.sentence2, strict=True) for text in pair):
        node.setdefault(text, len(node))
    edges = _edges(node, train)
    clusters = _clusters(len(node), {edge for edge, label in zip(edges, train.labels, strict=True) if label == 1})
    cluster_of = {number: index for index, cluster in enumerate(clusters) for number in cluster}
    given: Counter[_Edge] = Counter()  # different pairs of train, by the clusters of their sentences
    for first, second in dict.fromkeys(edges):
        given[_edge(cluster_of[first], cluster_of[second])] += first != second
    contradictory = {
        cluster_of[first]
        for (first, second), label in zip(edges, train.labels, strict=True)
        if label == 0 and cluster_of[first] == cluster_of[second]
    }
    known = {*edges, *(edge for split in others for edge in _edges(node, split))}
    added: list[tuple[_Edge, int]] = []
    for (first, second), limit in given.items():
        if not {first, second} & contradictory:
            candidates = _within(clusters[first]) if first == second else _across(clusters[first], clusters[second])
            new = islice((edge for edge in candidates if edge not in known), limit)
            added += [(edge, int(first == second)) for edge in new]
    texts = [*node]
    pairs = Pairs(
        train.file,
        [f"transitive-{index}" for index in range(len(added))],
        [texts[first] for (first, _), _ in added],
        [texts[second] for (_, second), _ in added],
        [label for _, label in added],
    )
    return TransitivePairs(pairs, sum(pairs.labels or ()), len(contradictory))


def _edges(node: dict[str, int], pairs: Pairs) -> list[_Edge]:
    """Return the numbers of both sentences of each pair whose sentences have numbers."""
    texts = zip(pairs.sentence1, pairs.sentence2, strict=True)
    return [_edge(node[first], node[second]) for first, second in texts if first in node and second in node]


def _edge(first: int, second: int) -> _Edge:
    return min(first, second), max(first, second)


def _clusters(nodes: int, edges: Iterable[_Edge]) -> list[list[int]]:
    """Return the connected components of a graph, each with its nodes in ascending order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(sorted(edges), np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(nodes, nodes))
    count, component = connected_components(graph, directed=False)
    clusters: list[list[int]] = [[] for _ in range(count)]
    for number, index in enumerate(component.tolist()):
        clusters[index].append(number)
    return clusters


def _within(cluster: list[int]) -> Iterator[_Edge]:
    """Yield all pairs of a cluster, such that the first ones are spread evenly over its sentences."""
    for distance in range(1, len(cluster)):
        yield from zip(cluster, cluster[distance:], strict=False)


def _across(first: list[int], second: list[int]) -> Iterator[_Edge]:
    """Yield all pairs of two clusters, such that the first ones are spread evenly over their sentences."""
    for shift in range(len(second)):
        for index, number in enumerate(first):
            yield _edge(number, second[(index + shift) % len(second)])
