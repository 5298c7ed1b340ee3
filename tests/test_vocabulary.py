"""The vocabulary of a model from scratch: the same in every process, and kept through a save."""

import json
import os
import subprocess
import sys

import pytest
from helpers import PATIENCE_S
from transformers import AutoTokenizer

from afqmc.models.wordpiece import train_wordpiece

SENTENCES = ["花呗怎么还款？", "借呗额度没了", "Hello hello world", "花呗 hello, low lower lowest"] * 3
CODE = f"""
import json
from afqmc.models.wordpiece import train_wordpiece
print(json.dumps(train_wordpiece({SENTENCES!r}, 100).get_vocab(), sort_keys=True))
"""


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(iter(SENTENCES), 100)


def test_the_vocabulary_is_the_same_in_every_process(tokenizer):
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    started = [subprocess.Popen([sys.executable, "-c", CODE], env=env, stdout=subprocess.PIPE) for env in environments]
    printed = [process.communicate(timeout=PATIENCE_S)[0] for process in started]
    assert [json.loads(text) for text in printed] == [tokenizer.get_vocab()] * 2


def test_a_saved_tokenizer_is_loaded_back_by_transformers_alone(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.model_input_names == tokenizer.model_input_names
    assert again.pad_token_id == tokenizer.pad_token_id == 0
    pair = ("花呗怎么 hello", "lowest 飞")
    assert dict(again(*pair)) == dict(tokenizer(*pair))


def test_a_pair_is_framed_and_its_sentences_told_apart(tokenizer):
    found = tokenizer("花呗", "hello")
    assert tokenizer.convert_ids_to_tokens(found["input_ids"]) == ["[CLS]", "花", "呗", "[SEP]", "hello", "[SEP]"]
    assert found["token_type_ids"] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("花呗还款", ["花", "呗", "还", "款"]),  # characters stand alone
        ("HELLO", ["hello"]),
        ("lowlow", ["low", "##low"]),
        ("飞 hello", ["[UNK]", "hello"]),
        ("怎么？", ["怎", "么", "？"]),
    ],
)
def test_text_is_cut_as_bert_cuts_it(tokenizer, text, tokens):
    assert tokenizer.tokenize(text) == tokens


def test_no_entry_is_spent_on_a_character_that_never_continues_a_word(tokenizer):
    assert {"花", "？", "low", "##low"} <= set(tokenizer.get_vocab())
    assert not {"##花", "##？"} & set(tokenizer.get_vocab())


def test_a_vocabulary_has_no_holes_and_no_more_entries_than_wanted(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    many = ["".join(chr(0x4E00 + (7 * line + n) % 300) for n in range(20)) for line in range(400)]
    small = train_wordpiece(many, 100)
    assert 90 <= len(small) <= 100
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} <= set(small.get_vocab())
