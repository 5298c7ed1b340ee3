"""Tokenise pairs like a BERT tokenizer, with a cache of words: the same tokens in a fraction of the time."""

from __future__ import annotations

import re
from typing import Self

import numpy as np
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_CHINESE = "\u4e00-\u9fff"  # BERT's normalizer puts spaces around each of these, and does not change them
_WORD = re.compile(f"[{_CHINESE}]|[^{_CHINESE} ]+")
_MAX_WORDS = 1 << 20  # the cache is emptied when it is larger, since texts may have any number of different words
_MAX_CHARACTERS = 32  # of a word that is kept, so that the cache stays small
_PROBES = ("一", "丁")

TokenArrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # token ids int32, segment ids int8, tokens per pair int64


class WordCache(dict[str, bytes]):
    """The token ids of words, int32 as bytes. A new word is tokenised on its first access.

    A word is a Chinese character, or a run of other characters without spaces. BERT's tokenizer splits a text at these
    places too, so the tokens of a text are those of its words. Long words, which seldom repeat, are not kept.

    Args:
        core: The tokenizer; ``of`` checks that this class gives its tokens.
        max_length: Maximum number of tokens per pair.
    """

    def __init__(self, core: Tokenizer, max_length: int) -> None:
        self._core, self._max_length = core, max_length
        self._whole = Tokenizer.from_str(core.to_str())
        self._whole.no_truncation()
        ids = np.array(self._whole.encode(*_PROBES).ids, np.int32)
        self._cls, self._sep = ids[0].tobytes(), ids[-1].tobytes()

    @classmethod
    def of(cls, core: Tokenizer, max_length: int) -> Self | None:
        """Return the cache of a tokenizer; None if it may not split a text where this class does."""
        is_bert = (
            isinstance(core.model, WordPiece)
            and isinstance(core.normalizer, BertNormalizer)
            and core.normalizer.handle_chinese_chars
            and isinstance(core.pre_tokenizer, BertPreTokenizer)
        )
        if not is_bert or any(_crosses_words(token, core) for token in core.get_added_tokens_decoder().values()):
            return None
        cache = cls(core, max_length)
        return cache if cache._is_layout_of_bert() else None

    def _is_layout_of_bert(self) -> bool:
        """Return whether a pair is [CLS] a [SEP] b [SEP], with the segments 0 and 1."""
        encoding = self._whole.encode(*_PROBES)
        first, second = map(self.__getitem__, _PROBES)
        expected = self._cls + first + self._sep + second + self._sep
        return encoding.type_ids == [0, 0, 0, 1, 1] and np.array(encoding.ids, np.int32).tobytes() == expected

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._whole.encode(word, add_special_tokens=False).ids, np.int32).tobytes()
        if len(word) <= _MAX_CHARACTERS:
            if len(self) >= _MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def encode_batch(self, sentence1: list[str], sentence2: list[str]) -> TokenArrays:
        """Return the tokens of some pairs in flat arrays. The tokenizer itself encodes pairs that are too long."""
        first, second = self._ids(sentence1), self._ids(sentence2)
        cls, sep = self._cls, self._sep
        rows = [cls + ids1 + sep + ids2 + sep for ids1, ids2 in zip(first, second, strict=True)]
        lengths = np.array([*map(len, rows)], np.int64) // 4
        in_second = np.array([*map(len, second)], np.int64) // 4 + 1
        too_long = np.flatnonzero(lengths > self._max_length)
        pairs = [(sentence1[row], sentence2[row]) for row in too_long.tolist()]
        for row, encoding in zip(too_long.tolist(), self._core.encode_batch_fast(pairs), strict=True):
            rows[row] = np.array(encoding.ids, np.int32).tobytes()
            lengths[row], in_second[row] = len(encoding.ids), sum(encoding.type_ids)
        parts = np.stack([lengths - in_second, in_second], axis=1).ravel()  # tokens in segment 0 and 1, of each pair
        segments = np.repeat(np.tile(np.array([0, 1], np.int8), len(rows)), parts)
        return np.frombuffer(b"".join(rows), np.int32), segments, lengths

    def _ids(self, texts: list[str]) -> list[bytes]:
        """Return the token ids of each text, int32 as bytes."""
        find, get = _WORD.findall, self.__getitem__
        return [b"".join(map(get, find(text))) for text in texts]


def _crosses_words(token: AddedToken, core: Tokenizer) -> bool:
    """Return whether an added token may match a text across the border of two words."""
    texts = (token.content, core.normalizer.normalize_str(token.content).strip())  # it may be matched in either
    return token.single_word or any(re.search(f"[{_CHINESE}\\s]", text) for text in texts)
