"""Pairs as token ids in flat arrays, encoded by the tokenizer's own many-threaded core."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Optional

import numpy as np
import tokenizers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from afqmc.data.loading import Pairs
from afqmc.data.token_cache import load_or_build

_CHUNK = 4096  # pairs tokenised at once
_Rows = tuple[list[Sequence[int]], list[Sequence[int]]]  # token ids and segments of each row


@dataclass(frozen=True)
class TokenizedPairs:
    """A split as tokens: row ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``, int32, segments likewise (int8)."""

    tokens: np.ndarray
    segments: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    ids: list[int | str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row (N,)."""
        return np.diff(self.offsets)


class PairTokenizer:
    """Encodes pairs as [CLS] a [SEP] b [SEP], cutting the longer sentence first where a pair exceeds the limit.

    Tokens are cut on the tokenizer's own ``truncation_side``.

    Args:
        tokenizer: Of the model; a copy of its core is used, so its own settings stay as they are.
        max_length: Tokens of a pair at most.
        cache: A directory that keeps the arrays of whole splits for later runs; None keeps nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Optional[Path] = None) -> None:
        self.tokenizer, self.max_length, self.cache = tokenizer, max_length, cache
        pad = tokenizer.pad_token_id
        self.pad_id: int = 0 if pad is None else int(pad)
        self.uses_token_type_ids = "token_type_ids" in tokenizer.model_input_names
        self._core: Tokenizer | None = None
        if tokenizer.is_fast:
            self._core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self._core.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
            self._core.no_padding()

    @property
    def fingerprint(self) -> str:
        """Of what the tokens depend on besides the texts."""
        return hashlib.sha256(self._settings.encode()).hexdigest()

    @cached_property
    def _settings(self) -> str:
        core = repr(self.tokenizer) if self._core is None else self._core.to_str()
        return f"{tokenizers.__version__} {self.uses_token_type_ids} {core}"

    def encode(self, pairs: Pairs) -> TokenizedPairs:
        """All pairs of a split, or of a chunk of a stream, as flat arrays."""
        return _with_labels(self._arrays(pairs), pairs)

    def tokenize_cached(self, pairs: Pairs) -> TokenizedPairs:
        """``encode``, the arrays memory-mapped from the cache where an earlier run has left them there."""
        if self.cache is None or self._core is None:
            return self.encode(pairs)
        arrays = load_or_build(
            self.cache, self._settings, (pairs.sentence1, pairs.sentence2), lambda: self._arrays(pairs)
        )
        return _with_labels(arrays, pairs)

    def _arrays(self, pairs: Pairs) -> dict[str, np.ndarray]:
        tokens, segments, lengths = [], [], []
        for rows, kinds in self._chunks(pairs):
            lengths += [len(row) for row in rows]
            tokens.append(_flat(rows, np.int32))
            segments.append(_flat(kinds if self.uses_token_type_ids else [], np.int8))
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return {"tokens": np.concatenate(tokens), "segments": np.concatenate(segments), "offsets": offsets}

    def _chunks(self, pairs: Pairs) -> Iterator[_Rows]:
        for start in range(0, len(pairs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            first, second = pairs.sentence1[rows], pairs.sentence2[rows]
            yield self._quick(first, second) if self._core is not None else self._plain(first, second)

    def _quick(self, first: list[str], second: list[str]) -> _Rows:
        assert self._core is not None
        found = self._core.encode_batch_fast(list(zip(first, second, strict=True)))
        return [row.ids for row in found], [row.type_ids for row in found]

    def _plain(self, first: list[str], second: list[str]) -> _Rows:
        """For the few tokenizers written in Python."""
        found = self.tokenizer(
            first,
            second,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=self.uses_token_type_ids,
            return_attention_mask=False,
        )
        return found["input_ids"], found.get("token_type_ids", [])


def _with_labels(arrays: dict[str, np.ndarray], pairs: Pairs) -> TokenizedPairs:
    labels = None if pairs.labels is None else np.asarray(pairs.labels, np.int64)
    return TokenizedPairs(arrays["tokens"], arrays["segments"], arrays["offsets"], labels, pairs.ids)


def _flat(rows: list[Sequence[int]], kind: type[np.generic]) -> np.ndarray:
    return np.array(list(itertools.chain.from_iterable(rows)), kind)
