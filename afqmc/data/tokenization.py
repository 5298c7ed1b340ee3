"""Tokenise pairs into flat arrays of token ids, using the multithreaded core of fast tokenizers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from afqmc.data.columns import offsets_of
from afqmc.data.loading import Pairs
from afqmc.data.token_cache import load_or_build
from afqmc.data.word_cache import TokenArrays, WordCache

_NO_LIMIT = 1 << 30  # tokens
_CHUNK = 4096  # pairs tokenised at once
TokenRows = tuple[list[Sequence[int]], list[Sequence[int]]]  # token ids and segment ids of each row


@dataclass(frozen=True)
class TokenizedPairs:
    """The tokens of N pairs in flat arrays; those of pair ``i`` are ``tokens[offsets[i]:offsets[i + 1]]``.

    Attributes:
        tokens: Token ids, int32.
        segments: Segment ids (``token_type_ids``), int8; empty if the model does not use them.
        offsets: First token of each pair and the end, int64 (N + 1,).
        labels: Class indices, int64 (N,); None if unlabelled.
        ids: The pairs' ids.
        words: The index of each token's word in its sentence, int32; only for whole-word masks.
        teacher_logits: Logits of a teacher, float32 (N, C); None without one.
    """

    tokens: np.ndarray
    segments: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    ids: Sequence[int | str]
    words: np.ndarray | None = None
    teacher_logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per pair, (N,)."""
        return np.diff(self.offsets)


class PairTokenizer:
    """Tokenises pairs as [CLS] a [SEP] b [SEP]. In pairs that are too long, the longer sentence is cut first.

    Tokens are cut on the tokenizer's own ``truncation_side``.

    Args:
        tokenizer: The model's tokenizer. It is not changed: truncation is set on a copy of its core.
        max_length: Maximum number of tokens per pair.
        cache: Directory that caches the arrays of whole splits for later runs; None disables the cache.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path | None = None) -> None:
        self.tokenizer, self.max_length, self.cache = tokenizer, max_length, cache
        pad = tokenizer.pad_token_id
        self.pad_id: int = 0 if pad is None else int(pad)
        self.uses_token_type_ids = "token_type_ids" in tokenizer.model_input_names
        self._core: Tokenizer | None = None
        if tokenizer.is_fast:
            self._core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self._core.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
            self._core.no_padding()
        self._word_cache = self._build_word_cache()

    def _build_word_cache(self) -> WordCache | None:
        """Return the word cache, or None if the tokenizer does not split texts as BERT's does."""
        return None if self._core is None else WordCache.of(self._core, self.max_length)

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything except the texts that the tokens depend on."""
        return hashlib.sha256(self._settings.encode()).hexdigest()

    @cached_property
    def _settings(self) -> str:
        core = repr(self.tokenizer) if self._core is None else self._core.to_str()
        return f"{tokenizers.__version__} {self.uses_token_type_ids} {core}"

    def encode(self, pairs: Pairs) -> TokenizedPairs:
        """Tokenise the pairs of a split, or of a chunk of a stream."""
        return _with_labels(self._arrays(pairs), pairs)

    def truncated(self, pairs: Pairs, tokenized: TokenizedPairs) -> np.ndarray:
        """Return which pairs have more tokens than ``max_length``, and so were cut: bool (N,).

        Only pairs of exactly ``max_length`` tokens are tokenised once more, without the limit.
        """
        is_cut = tokenized.lengths >= self.max_length
        if rows := np.flatnonzero(is_cut).tolist():
            first, second = ([column[row] for row in rows] for column in (pairs.sentence1, pairs.sentence2))
            whole = self._unlimited.encode(Pairs(pairs.file, [*rows], first, second, None))
            is_cut[rows] = whole.lengths > self.max_length
        return is_cut

    @cached_property
    def _unlimited(self) -> PairTokenizer:
        return PairTokenizer(self.tokenizer, _NO_LIMIT)

    def tokenize_cached(self, pairs: Pairs) -> TokenizedPairs:
        """Tokenise a split, or memory-map its arrays from the cache if an earlier run has stored them."""
        if self.cache is None or self._core is None:
            return self.encode(pairs)
        arrays = load_or_build(
            self.cache, self._settings, (pairs.sentence1, pairs.sentence2), lambda: self._arrays(pairs)
        )
        return _with_labels(arrays, pairs)

    def _arrays(self, pairs: Pairs) -> dict[str, np.ndarray]:
        tokens, segments, lengths = map(np.concatenate, zip(*self._chunks(pairs), strict=True))
        return {"tokens": tokens, "segments": segments, "offsets": offsets_of(lengths)}

    def _chunks(self, pairs: Pairs) -> Iterator[TokenArrays]:
        for start in range(0, len(pairs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            sentence1, sentence2 = [*pairs.sentence1[rows]], [*pairs.sentence2[rows]]
            if self._word_cache is not None:
                tokens, segments, lengths = self._word_cache.encode_batch(sentence1, sentence2)
            else:
                tokenize = self._fast if self._core is not None else self._slow
                token_rows, segment_rows = tokenize(sentence1, sentence2)
                tokens, lengths = _flat(token_rows, np.int32), np.array([*map(len, token_rows)], np.int64)
                segments = _flat(segment_rows if self.uses_token_type_ids else [], np.int8)
            yield tokens, segments if self.uses_token_type_ids else segments[:0], lengths

    def _fast(self, sentence1: list[str], sentence2: list[str]) -> TokenRows:
        assert self._core is not None
        encodings = self._core.encode_batch_fast(list(zip(sentence1, sentence2, strict=True)))
        return [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]

    def _slow(self, sentence1: list[str], sentence2: list[str]) -> TokenRows:
        """Tokenise with one of the few tokenizers written in Python."""
        encoding = self.tokenizer(
            sentence1,
            sentence2,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=self.uses_token_type_ids,
            return_attention_mask=False,
        )
        return encoding["input_ids"], encoding.get("token_type_ids", [])


def _with_labels(arrays: dict[str, np.ndarray], pairs: Pairs) -> TokenizedPairs:
    labels = None if pairs.labels is None else np.asarray(pairs.labels, np.int64)
    return TokenizedPairs(
        arrays["tokens"],
        arrays["segments"],
        arrays["offsets"],
        labels,
        pairs.ids,
        arrays.get("words"),
        pairs.teacher_logits,
    )


def _flat(rows: list[Sequence[int]], dtype: type[np.generic]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype)
