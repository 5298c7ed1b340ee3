"""The embedded data: AFQMC's format and proportions, disjoint splits, no shortcuts to the label."""

import json
import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from afqmc.data.sample import ALIKE, HARD_SHARE, character_overlap, intents, sample_files, split_intents


def pairs(split):
    return [json.loads(line) for line in sample_files()[f"{split}.json"].splitlines()]


def intent_of():
    return {wording: intent for intent in intents() for wording in intent.wordings}


def test_number_of_intents_and_wordings():
    assert len(intents()) >= 300
    assert min(len(intent.wordings) for intent in intents()) >= 8
    assert len({intent.slug for intent in intents()}) == len(intents())


def test_wordings_are_unique():
    wordings = [wording for intent in intents() for wording in intent.wordings]
    assert len(set(wordings)) == len(wordings)


@pytest.mark.parametrize("word", ["请问", "您好", "咋", "啥", "如何"])
def test_phrases_are_not_in_every_intent(word):
    """No phrase of politeness or dialect occurs exactly once in half of the intents."""
    counts = Counter(sum(word in wording for wording in intent.wordings) for intent in intents())
    assert counts[1] < len(intents()) / 2


def test_longest_wording_varies_in_position():
    """The longest wording is at the same position in fewer than a fifth of the intents."""
    positions = Counter(max(range(len(i.wordings)), key=lambda n: len(i.wordings[n])) for i in intents())
    assert max(positions.values()) < len(intents()) / 5


def test_splits_share_no_intent_and_no_sentence():
    for one, other in combinations(("train", "dev", "test"), 2):
        assert not {i.slug for i in split_intents()[one]} & {i.slug for i in split_intents()[other]}
        a, b = ({row[key] for row in pairs(split) for key in ("sentence1", "sentence2")} for split in (one, other))
        assert not a & b


@pytest.mark.parametrize("split", ["train", "dev"])
def test_label_is_same_intent(split):
    """The label is 1 if and only if both wordings belong to one intent."""
    intent = intent_of()
    for row in pairs(split):
        same = intent[row["sentence1"]] == intent[row["sentence2"]]
        assert row == {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": str(int(same))}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_positives_are_31_percent(split):
    labels = [row["label"] for row in pairs(split)]
    assert labels.count("1") / len(labels) == pytest.approx(0.31, abs=0.001)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_most_negatives_share_topic_and_characters(split):
    intent = intent_of()
    negatives = [(row["sentence1"], row["sentence2"]) for row in pairs(split) if row["label"] == "0"]
    hard = [
        pair
        for pair in negatives
        if intent[pair[0]].topic == intent[pair[1]].topic and character_overlap(*pair) >= ALIKE
    ]
    assert HARD_SHARE >= 0.6
    assert ALIKE >= 0.2
    assert len(hard) / len(negatives) >= HARD_SHARE - 0.001


@pytest.mark.parametrize("split", ["train", "dev"])
def test_overlap_predicts_label_poorly(split):
    """The overlap of characters alone is a poor predictor of the label."""
    rows = pairs(split)
    alike = [character_overlap(row["sentence1"], row["sentence2"]) for row in rows]
    assert 0.6 < roc_auc_score([int(row["label"]) for row in rows], alike) < 0.72


def test_overlap_is_of_distinct_characters():
    assert character_overlap("还款", "还款还款") == 1
    assert character_overlap("提前还款", "延期还款") == pytest.approx(2 / 6)
    assert character_overlap("提前", "还款") == 0


def test_generation_is_deterministic():
    once = dict(sample_files())
    sample_files.cache_clear()
    intents.cache_clear()
    assert sample_files() == once


def test_pairs_are_unique():
    """No pair occurs twice, in either order of its sentences."""
    for split in ("train", "dev", "test"):
        keys = [frozenset((row["sentence1"], row["sentence2"])) for row in pairs(split)]
        assert len(set(keys)) == len(keys)


def test_test_split_is_unlabelled():
    assert [row["id"] for row in pairs("test")] == list(range(len(pairs("test"))))
    assert all(row.keys() == {"id", "sentence1", "sentence2"} for row in pairs("test"))


@pytest.mark.skipif("AFQMC_DATA" not in os.environ, reason="AFQMC_DATA names no copy of the real data")
def test_no_sentence_is_from_afqmc():
    real = set()
    for split in ("train", "dev", "test"):
        for line in (Path(os.environ["AFQMC_DATA"]) / f"{split}.json").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            real |= {row["sentence1"], row["sentence2"]}
    assert not real & set(intent_of())
