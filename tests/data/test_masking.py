"""Masks: their number, their units, what replaces a token, and that they depend only on seed, epoch and row."""

import numpy as np
import pytest

from afqmc.data.batching import Shard
from afqmc.data.config import DatasetConfig
from afqmc.data.masking import IGNORED, MaskedLoader, Masker, masked_eval_batches
from afqmc.data.masking_config import MaskingConfig, MaskingUnit
from afqmc.data.sentence_tokenization import SentenceTokenizer, load_segmenter, word_indices
from afqmc.utils.errors import InputError


@pytest.fixture
def masker(tiny_tokenizer):
    """Return a function that builds a masker."""
    return lambda unit="token", **keys: Masker(tiny_tokenizer, MaskingConfig(unit=MaskingUnit[unit], **keys))


def sentence(masker, length, rng):
    ordinary = np.flatnonzero(~masker.is_special)
    return np.concatenate([[2], rng.choice(ordinary, length), [3]])  # [CLS] ... [SEP]


def drawn(masker, length, words=None, count=2000):
    """Return tokens, masked tokens and labels (count, length + 2) of random sentences."""
    rng = np.random.default_rng(0)
    tokens = np.stack([sentence(masker, length, rng) for _ in range(count)])
    masked = tokens.copy()
    labels = np.stack([masker.mask(row, words, np.random.default_rng(index)) for index, row in enumerate(masked)])
    return tokens, masked, labels


@pytest.mark.parametrize("unit", ["token", "ngram"])
@pytest.mark.parametrize(
    ("length", "probability", "expected"), [(20, 0.15, 3), (7, 0.15, 1), (2, 0.1, 1), (10, 0.5, 5)]
)
def test_number_of_masked_tokens(masker, unit, length, probability, expected):
    """max(1, round(probability * n)) tokens are predicted; a first n-gram may be longer."""
    _, _, labels = drawn(masker(unit, probability=probability), length, count=200)
    counts = (labels != IGNORED).sum(axis=1)
    assert (counts == expected).all() if unit == "token" else (counts <= max(expected, 4)).all() and counts.min() >= 1


def test_replacements(masker):
    """80% of the predicted tokens become [MASK], 10% a random token, 10% stay; special tokens and others are kept."""
    built = masker(probability=0.3)
    tokens, masked, labels = drawn(built, 20)
    predicted = labels != IGNORED
    assert (labels[predicted] == tokens[predicted]).all()
    assert (masked[~predicted] == tokens[~predicted]).all()
    assert not predicted[:, [0, -1]].any()
    shares = [(masked[predicted] == built.mask_id).mean(), (masked[predicted] == tokens[predicted]).mean()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.012)  # a random token is sometimes the same, or [MASK]
    assert predicted[:, 1:-1].mean(axis=0) == pytest.approx(0.3, abs=0.04)  # at every position


def test_words_are_whole(masker):
    """A word is masked as a whole or not at all."""
    words = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 0])
    _, _, labels = drawn(masker("whole_word", probability=0.4), 9, words, count=300)
    for row in labels != IGNORED:
        assert all(len(set(row[1:-1][words[1:-1] == word])) == 1 for word in range(5))
        assert row.any()


def test_lengths_of_ngrams(masker):
    """With max_ngram=4, n-grams of 1, 2, 3 and 4 tokens have the shares of MacBERT: 40%, 30%, 20%, 10%."""
    built, rng = masker("ngram"), np.random.default_rng(0)
    units = built._units(np.arange(40_000), None, rng)
    lengths = np.array([len(unit) for unit in units[:-1]])
    assert [(lengths == n).mean() for n in (1, 2, 3, 4)] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.015)
    assert (np.concatenate(units) == np.arange(40_000)).all()


def test_only_special_tokens(masker):
    """A sentence of special tokens has no mask."""
    assert (masker().mask(np.array([2, 3]), None, np.random.default_rng(0)) == IGNORED).all()


@pytest.fixture
def loader(pairs, tiny_tokenizer, masker):
    """Return a function that builds a loader."""

    def build(batch_size=8, seed=1, **keys):
        tokenizer = SentenceTokenizer(tiny_tokenizer, 16)
        return MaskedLoader(pairs, tokenizer, batch_size, seed, DatasetConfig(**keys), masker())

    return build


def by_id(batches):
    """Return tokens and labels of each sentence without padding, by its id."""
    return {
        pair_id: (batch.inputs["input_ids"][index, :length].tolist(), batch.labels[index, :length].tolist())
        for batch in batches
        for index, pair_id in enumerate(batch.ids)
        for length in [int(batch.inputs["attention_mask"][index].sum())]
    }


def test_masks_do_not_depend_on_the_batch(loader):
    """They are the same for any batch size and order, and after skipped batches."""
    expected = by_id(loader().epoch(0))
    assert by_id(loader(batch_size=3).epoch(0)) == expected
    assert by_id(loader(batching="random").epoch(0)) == expected
    rest = by_id(loader().epoch(0, skip=2))
    assert 0 < len(rest) < len(expected)
    assert rest == {pair_id: expected[pair_id] for pair_id in rest}


def test_masks_differ_by_epoch_and_seed(loader):
    first = by_id(loader().epoch(0))
    assert first != by_id(loader().epoch(1))
    assert first != by_id(loader(seed=2).epoch(0))


def test_shards_of_an_evaluation(pairs, tiny_tokenizer, masker):
    """Two ranks evaluate the sentences and masks of one."""
    tokenizer = SentenceTokenizer(tiny_tokenizer, 16)
    tokenized = tokenizer.encode(pairs)

    def batches(shard):
        return [batch for _, batch in masked_eval_batches(tokenized, tokenizer, 8, masker(), 0, shard)]

    shards = by_id([*batches(Shard(0, 2)), *batches(Shard(1, 2))])
    assert shards == by_id(batches(Shard()))
    assert len(shards) == len(pairs)


def test_tokens_of_a_sentence(pairs, tiny_tokenizer):
    """A row is [CLS] sentence1 [SEP]; it is cut to the maximum length."""
    tokenized = SentenceTokenizer(tiny_tokenizer, 12).encode(pairs)
    expected = tiny_tokenizer(pairs.sentence1, truncation=True, max_length=12)["input_ids"]
    assert tokenized.tokens.tolist() == [token for row in expected for token in row]
    assert set(tokenized.segments.tolist()) == {0}


def test_words_of_tokens(tiny_tokenizer):
    """Each token has the word in which it begins."""
    encoding = tiny_tokenizer._tokenizer.encode("花呗怎么还款")
    assert encoding.tokens == ["[CLS]", *"花呗怎么还款", "[SEP]"]
    assert word_indices(encoding, ["花呗", "怎么", "还款"])[1:-1].tolist() == [0, 0, 1, 1, 2, 2]


def test_segmenter():
    """The words of a sentence concatenate to it."""
    pytest.importorskip("rjieba")
    for text in ("花呗怎么提前还款", "a  b，借呗 iPhone12", "𠮷野家"):
        assert "".join(load_segmenter()(text)) == text


def test_missing_segmenter(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rjieba", None)
    with pytest.raises(InputError, match=r"masking.unit=whole_word: needs .* pip install 'afqmc\[words\]'"):
        load_segmenter()


def test_tokenizer_without_mask(tiny_tokenizer):
    from afqmc.models.wordpiece import train_wordpiece

    other = train_wordpiece(["一二三"] * 3, 100)
    other.mask_token = None
    with pytest.raises(InputError, match="has no mask token"):
        Masker(other, MaskingConfig(unit=MaskingUnit.token))
