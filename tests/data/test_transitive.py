"""Pairs that follow from the labels of others."""

import itertools
import re

import pytest
from helpers import prepared, small

from afqmc.data.loading import Dataset
from afqmc.data.pairs import Pairs
from afqmc.data.transitive import check_means_same, transitive_pairs
from afqmc.runner.data_methods import training_pairs
from afqmc.utils.errors import InputError


def pairs(*rows):
    """Return labelled pairs, each written as ``a=b`` or ``a!b``."""
    texts = [re.split("[=!]", row) for row in rows]
    labels = [int("=" in row) for row in rows]
    return Pairs("train", [*range(len(rows))], [one for one, _ in texts], [two for _, two in texts], labels)


def added(train, *others):
    """Return the added pairs, written in the same way, with their sentences in order."""
    new = transitive_pairs(train, others).pairs
    columns = zip(new.sentence1, new.sentence2, new.labels, strict=True)
    return {"!="[label].join(sorted([one, two])) for one, two, label in columns}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (["a=b", "b=c"], {"a=c"}),
        (["b=a", "b=c", "c!d"], {"a=c", "b!d"}),  # b!d or a!d: as many as train has between {a, b, c} and {d}
        (["a=b", "b!c"], {"a!c"}),
        (["a!b", "b!c"], set()),
        (["a=b", "a=b", "b=c", "c=b"], {"a=c"}),
        (["a=b", "b=c", "a=c"], set()),
        (["a=b", "b=c", "a!c", "d=e", "e=f", "a!d"], {"d=f"}),  # the labels of a, b and c contradict each other
        (["a=b", "a!b", "b=c"], set()),
        (["a=a", "a=b"], set()),
    ],
)
def test_conclusions(train, expected):
    """Equal sentences form clusters; clusters with contradictory labels add nothing."""
    assert added(pairs(*train)) == expected


def test_contradictions_are_counted():
    assert transitive_pairs(pairs("a=b", "b=c", "a!c", "x=y", "x!y", "d=e", "e=f")).contradictory == 2


def test_large_cluster_is_limited():
    """A cluster of n sentences with n - 1 pairs adds n - 1 pairs, spread over its sentences."""
    chain = pairs(*(f"s{index:02}=s{index + 1:02}" for index in range(30)))
    new = transitive_pairs(chain)
    assert (len(new.pairs), new.same) == (30, 30)
    assert len({*new.pairs.sentence1, *new.pairs.sentence2}) == 31


def test_pairs_between_two_clusters_are_limited():
    """Two clusters add as many pairs as train has between them."""
    train = pairs("a=b", "c=d", "a!c", "b!d")
    new = transitive_pairs(train)
    assert (len(new.pairs), new.same) == (2, 0)
    assert added(train) == {"a!d", "b!c"}


def test_pairs_of_dev_and_test_are_not_added():
    """Pairs of other splits are not added, in either order, and their labels are not used."""
    train = pairs("a=b", "b=c", "d=e", "e=f")
    assert added(train, pairs("c!a"), pairs("c=d")) == {"d=f"}


@pytest.mark.parametrize("labels", [("0", "1"), ("different", "Same"), ("no", "yes"), ("不同", "相同")])
def test_labels_that_mean_same(labels):
    check_means_same(labels)


@pytest.mark.parametrize("labels", [("1", "0"), ("same", "unrelated"), ("0", "1", "2"), ("entailment", "neutral")])
def test_other_labels_are_refused(labels):
    """Labels are refused unless there are two and the second means the same."""
    with pytest.raises(InputError, match="dataset.transitive=true: needs two classes, the second of which means the"):
        check_means_same(labels)


def test_method_without_effect_is_refused():
    """A run to which no pair can be added is refused."""
    config, train = small("dataset.transitive=true").dataset, pairs("a=b", "c!d")
    with pytest.raises(InputError, match="no pair follows from the labels of train"):
        training_pairs(config, Dataset("data", ("0", "1"), train, pairs("e=f")))


def test_only_train_of_a_fold_is_used(tmp_path):
    """With folds, sentences of added pairs are those of the other folds, and no dev pair is added."""
    folds = ("dataset.num_folds=3", "dataset.fold=1", "dataset.max_dev_samples=null", "dataset.transitive=true")
    setup = prepared(tmp_path / "run", *folds)
    given, train = setup.data.train, setup.train.pairs
    assert len(train) == len(given) + setup.train.report["transitive/same"] + setup.train.report["transitive/different"]
    new = train.select([*range(len(given), len(train))], "added")
    assert {*new.sentence1, *new.sentence2} <= {*given.sentence1, *given.sentence2}
    known = {
        frozenset(texts)
        for split in (setup.data.train, setup.data.dev, setup.data.test)
        for texts in zip(split.sentence1, split.sentence2, strict=True)
    }
    assert not known & {*map(frozenset, zip(new.sentence1, new.sentence2, strict=True))}
    assert len(new) == len({*map(frozenset, zip(new.sentence1, new.sentence2, strict=True))})
    assert list(itertools.islice(train.ids, len(given))) == given.ids
