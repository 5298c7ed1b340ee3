"""The cache of words: it gives the tokenizer's own tokens, or is not used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from afqmc.data.pairs import Pairs
from afqmc.data.tokenization import PairTokenizer
from afqmc.data.word_cache import WordCache

# what BERT's normalizer treats in a special way: accents alone and composed, capitals, wide and other Chinese
# characters, punctuation, spaces of several kinds, control and invisible characters, special tokens and parts of them
SPECIAL = [
    *("花", "呗", "\u3400", "\uf900", "\U00020000", "々", "〇", "\u00e9", "e\u0301", "\u0301", "Σ", "İ", "ß", "Ｗ"),
    *("，", "。", "-", "'", " ", "\t", "\u3000", "\u00a0", "\u200b", "\ufeff", "\r", "\u0300", "한", "か\u3099", "😀"),
    *("[SEP]", "[CLS]", "[MASK]", "[UNK", "SEP]", "##a", "how", "to", "Pay", "2", "30", "👨\u200d👩", "a" * 101),
]
TEXTS = st.one_of(st.lists(st.sampled_from(SPECIAL), max_size=14).map("".join), st.text(max_size=12))


def core_of(tokenizer, **changes):
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    for name, value in changes.items():
        setattr(core, name, value)
    return core


def reference(core, pairs, max_length):
    core.enable_truncation(max_length, strategy="longest_first")
    core.no_padding()
    return [(encoding.ids, encoding.type_ids) for encoding in core.encode_batch(pairs)]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), st.integers(5, 40))
@settings(deadline=None, max_examples=20)
def test_same_tokens(tiny_tokenizer, lowercase, strip_accents, pairs, max_length):
    """Tokens and segments are those of the tokenizer, also of pairs that are too long."""
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    core = core_of(tiny_tokenizer, normalizer=normalizer)
    expected = reference(core, pairs, max_length)
    cache = WordCache.of(core, max_length)
    for _ in range(2):  # the second time from the cache
        tokens, segments, lengths = cache.encode_batch(*map(list, zip(*pairs, strict=True)))
        ends = np.cumsum(lengths).tolist()
        starts = [0, *ends[:-1]]
        rows = [
            (tokens[start:end].tolist(), segments[start:end].tolist()) for start, end in zip(starts, ends, strict=True)
        ]
        assert rows == expected


def test_used_for_bert(tiny_tokenizer, pairs):
    """A pair tokenizer uses it for BERT's tokenizer, and the arrays are those without it."""
    fast, plain = PairTokenizer(tiny_tokenizer, 24), PairTokenizer(tiny_tokenizer, 24)
    assert fast._word_cache is not None
    plain._word_cache = None
    one, other = fast.encode(pairs), plain.encode(pairs)
    for name in ("tokens", "segments", "offsets"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_without_segments(tiny_tokenizer):
    """A model without segment ids gets none."""
    pair_tokenizer = PairTokenizer(tiny_tokenizer, 24)
    pair_tokenizer.uses_token_type_ids = False
    assert pair_tokenizer.encode(Pairs("x", [0], ["花呗"], ["借呗"], None)).segments.tolist() == []


def test_cache_is_limited(tiny_tokenizer, monkeypatch):
    """The cache does not grow without limit."""
    monkeypatch.setattr("afqmc.data.word_cache._MAX_WORDS", 10)
    core = core_of(tiny_tokenizer)
    cache = WordCache.of(core, 24)
    texts = [f"花{number}呗" for number in range(100)]
    tokens = cache.encode_batch(texts, texts)[0].tolist()
    assert len(cache) <= 10
    long = ["a" * 33]
    cache.encode_batch(long, long)
    assert long[0] not in cache
    assert tokens == [token for ids, _ in reference(core, [*zip(texts, texts, strict=True)], 24) for token in ids]


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.BertNormalizer(handle_chinese_chars=False)},
        {"normalizer": normalizers.NFC()},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"post_processor": None},
    ],
)
def test_other_tokenizers(tiny_tokenizer, changes):
    """It is not used for a tokenizer that may split texts elsewhere, or that joins pairs in another way."""
    if changes == {"post_processor": None}:
        from tokenizers.processors import TemplateProcessing

        changes = {"post_processor": TemplateProcessing("$A", "$A:0 $B:0", [])}
    assert WordCache.of(core_of(tiny_tokenizer, **changes), 24) is None


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("花呗"),
        AddedToken("a b"),
        AddedToken("ab", single_word=True),
        AddedToken("\uf900\uf900", normalized=True),
    ],
)
def test_added_tokens(tiny_tokenizer, token):
    """It is not used if an added token may cross the border of two words."""
    core = core_of(tiny_tokenizer)
    core.add_tokens([token])
    assert WordCache.of(core, 24) is None
