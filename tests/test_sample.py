"""The embedded data: hand-written, in AFQMC's format and proportions, its splits apart."""

import json
import os
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from afqmc.dataset.sample import HARD_SHARE, intents, overlap, sample_files, split_intents


def pairs(split):
    return [json.loads(line) for line in sample_files()[f"{split}.json"].splitlines()]


def intent_of():
    return {wording: intent for intent in intents() for wording in intent.wordings}


def test_there_are_250_intents_with_six_wordings_or_more():
    assert len(intents()) >= 250
    assert min(len(intent.wordings) for intent in intents()) >= 6
    assert len({intent.slug for intent in intents()}) == len(intents())


def test_no_wording_is_there_twice():
    wordings = [wording for intent in intents() for wording in intent.wordings]
    assert len(set(wordings)) == len(wordings)


def test_splits_share_no_intent_and_no_sentence():
    for one, other in combinations(("train", "dev", "test"), 2):
        assert not {i.slug for i in split_intents()[one]} & {i.slug for i in split_intents()[other]}
        a, b = ({row[key] for row in pairs(split) for key in ("sentence1", "sentence2")} for split in (one, other))
        assert not a & b


@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels_say_whether_both_wordings_are_of_one_intent(split):
    intent = intent_of()
    for row in pairs(split):
        same = intent[row["sentence1"]] == intent[row["sentence2"]]
        assert row == {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": str(int(same))}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_positives_are_31_percent_and_negatives_mostly_neighbours(split):
    intent, rows = intent_of(), pairs(split)
    negatives = [row for row in rows if row["label"] == "0"]
    assert 1 - len(negatives) / len(rows) == pytest.approx(0.31, abs=0.001)
    near = [row for row in negatives if intent[row["sentence1"]].topic == intent[row["sentence2"]].topic]
    assert len(near) / len(negatives) >= HARD_SHARE


@pytest.mark.parametrize("split", ["train", "dev"])
def test_shared_characters_alone_tell_little(split):
    rows = pairs(split)
    shared = [overlap(row["sentence1"], row["sentence2"]) for row in rows]
    labels = [int(row["label"]) for row in rows]
    assert 0.64 < roc_auc_score(labels, shared) < 0.72
    negatives = [value for value, label in zip(shared, labels, strict=True) if label == 0]
    assert sum(value >= 0.2 for value in negatives) / len(negatives) >= 0.5
    assert sum(value < 0.1 for value in negatives) / len(negatives) < 0.25


def test_the_pairs_are_the_same_every_time():
    before = sample_files()
    sample_files.cache_clear()
    assert sample_files() == before


def test_no_pair_is_there_twice_in_either_order():
    for split in ("train", "dev", "test"):
        keys = [frozenset((row["sentence1"], row["sentence2"])) for row in pairs(split)]
        assert len(set(keys)) == len(keys)


def test_the_test_split_has_ids_and_no_labels():
    assert [row["id"] for row in pairs("test")] == list(range(len(pairs("test"))))
    assert all(row.keys() == {"id", "sentence1", "sentence2"} for row in pairs("test"))


def test_wordings_follow_no_pattern_from_intent_to_intent():
    longest = Counter(max(range(len(i.wordings)), key=lambda k: len(i.wordings[k])) for i in intents())
    assert max(longest.values()) < 0.2 * len(intents())
    for word in ("请问", "您好", "咋", "怎么", "吗"):
        assert len(Counter(sum(word in wording for wording in i.wordings) for i in intents())) >= 2
        assert sum(sum(word in wording for wording in i.wordings) == 1 for i in intents()) < 0.25 * len(intents())


def bare(sentence):
    return re.sub(r"\W", "", sentence)


@pytest.mark.skipif("AFQMC_DATA" not in os.environ, reason="AFQMC_DATA names no copy of the real data")
def test_no_sentence_is_one_of_afqmcs():
    real = set()
    for split in ("train", "dev", "test"):
        for line in (Path(os.environ["AFQMC_DATA"]) / f"{split}.json").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            real |= {bare(row["sentence1"]), bare(row["sentence2"])}
    assert not real & set(map(bare, intent_of()))
