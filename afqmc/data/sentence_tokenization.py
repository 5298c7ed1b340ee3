"""Tokenise single sentences for ``afqmc pretrain``, with the word of each token for whole-word masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from afqmc.data.loading import Pairs
from afqmc.data.tokenization import PairTokenizer, TokenRows
from afqmc.utils.errors import InputError

Segment = Callable[[str], list[str]]  # a sentence to its words, which concatenate to the sentence


class SentenceTokenizer(PairTokenizer):
    """Tokenises ``sentence1`` of each row as [CLS] a [SEP]; ``sentence2`` is ignored.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Maximum number of tokens per sentence.
        cache: As for ``PairTokenizer``.
        with_words: Whether the arrays have ``words``, the index of each token's word in its sentence. Words are those
            of jieba's segmentation (rjieba).

    Raises:
        InputError: with words, when rjieba is not installed or the tokenizer is a slow one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        cache: Path | None = None,
        with_words: bool = False,
    ) -> None:
        super().__init__(tokenizer, max_length, cache)
        self.segment = load_segmenter() if with_words else None
        if with_words and self._core is None:
            raise InputError("masking.unit=whole_word: not with a slow tokenizer; allowed: token, ngram")

    @cached_property
    def _settings(self) -> str:
        words = "" if self.segment is None else f" words rjieba {version('rjieba')}"
        return f"sentences{words} {super()._settings}"

    def _build_word_cache(self) -> None:
        """Return None: the cache supports pairs only."""

    def _arrays(self, pairs: Pairs) -> dict[str, np.ndarray]:
        arrays = super()._arrays(pairs)
        if self.segment is not None:
            assert self._core is not None
            encodings = self._core.encode_batch(pairs.sentence1)
            words = [
                word_indices(encoding, self.segment(text))
                for encoding, text in zip(encodings, pairs.sentence1, strict=True)
            ]
            arrays["words"] = np.concatenate(words)
        return arrays

    def _fast(self, sentence1: list[str], sentence2: list[str]) -> TokenRows:
        assert self._core is not None
        encodings = self._core.encode_batch_fast(sentence1)
        return [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]

    def _slow(self, sentence1: list[str], sentence2: list[str]) -> TokenRows:
        encoding = self.tokenizer(
            sentence1,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=self.uses_token_type_ids,
            return_attention_mask=False,
        )
        return encoding["input_ids"], encoding.get("token_type_ids", [])


def load_segmenter() -> Segment:
    """Return the word segmenter, jieba's algorithm in the maintained implementation jieba-rs.

    Raises:
        InputError: when it is not installed.
    """
    try:
        from rjieba import cut
    except ImportError as error:
        raise InputError(
            "masking.unit=whole_word: needs the word segmenter rjieba: pip install 'afqmc[words]'; "
            "masking.unit=token and ngram do not"
        ) from error
    segment: Segment = cut
    return segment


def word_indices(encoding: Encoding, words: list[str]) -> np.ndarray:
    """Return the index of the word in which each token begins, int32 (T,). Of special tokens it has no meaning."""
    word_of_character = np.repeat(np.arange(len(words), dtype=np.int32), [len(word) for word in words])
    starts = [start for start, _ in encoding.offsets]
    return word_of_character[starts]
