"""Test the WordPiece tokenizer that is trained for models from scratch."""

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


def test_vocabulary_is_deterministic(tokenizer):
    """Each process trains the same vocabulary."""
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    started = [subprocess.Popen([sys.executable, "-c", CODE], env=env, stdout=subprocess.PIPE) for env in environments]
    printed = [process.communicate(timeout=PATIENCE_S)[0] for process in started]
    assert [json.loads(text) for text in printed] == [tokenizer.get_vocab()] * 2


def test_save_and_load(tokenizer, tmp_path):
    """transformers loads a saved tokenizer without this project."""
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.model_input_names == tokenizer.model_input_names
    assert again.pad_token_id == tokenizer.pad_token_id == 0
    pair = ("花呗怎么 hello", "lowest 飞")
    assert dict(again(*pair)) == dict(tokenizer(*pair))


def test_pair_encoding(tokenizer):
    """A pair is [CLS] a [SEP] b [SEP] with segments 0 and 1."""
    encoding = tokenizer("花呗", "hello")
    assert tokenizer.convert_ids_to_tokens(encoding["input_ids"]) == ["[CLS]", "花", "呗", "[SEP]", "hello", "[SEP]"]
    assert encoding["token_type_ids"] == [0, 0, 0, 0, 1, 1]


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
def test_tokenization(tokenizer, text, tokens):
    """Text is split as BERT splits it."""
    assert tokenizer.tokenize(text) == tokens


def test_no_useless_continuations(tokenizer):
    """Chinese characters and punctuation have no ## entry."""
    assert {"花", "？", "low", "##low"} <= set(tokenizer.get_vocab())
    assert not {"##花", "##？"} & set(tokenizer.get_vocab())


def test_vocabulary_size(tokenizer):
    """Ids are contiguous, and the size limit is respected."""
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    many = ["".join(chr(0x4E00 + (7 * line + n) % 300) for n in range(20)) for line in range(400)]
    small = train_wordpiece(many, 100)
    assert 90 <= len(small) <= 100
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} <= set(small.get_vocab())
