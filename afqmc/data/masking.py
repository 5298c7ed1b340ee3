"""Masks for masked language modelling: which tokens are predicted, and what stands in their place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from afqmc.data.batching import WHOLE, Batch, Shard, TrainLoader, collate, eval_rows
from afqmc.data.config import DatasetConfig
from afqmc.data.loading import Pairs
from afqmc.data.masking_config import MaskingConfig, MaskingUnit
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.utils.errors import InputError

IGNORED = -100  # label of a token that is not predicted
_MASK_SHARE, _RANDOM_SHARE = 0.8, 0.1  # of the predicted tokens; the others stay as they are
_DEV, _TRAIN = 0, 1  # first part of the key of a random generator


class Masker:
    """Makes batches with masks, as in BERT's ``create_masked_lm_predictions`` (Devlin et al. 2019, section 3.1).

    Of the n tokens of a sentence, special tokens left out, max(1, round(probability * n)) are predicted. Of these, 80%
    become [MASK], 10% a random token, and 10% stay. Units are taken in random order. One that would exceed the number
    is skipped, unless it is the first. The units are

    - ``token``: single tokens;
    - ``whole_word``: the tokens of a word (Cui et al. 2021, "Pre-Training With Whole Word Masking for Chinese BERT");
    - ``ngram``: n consecutive tokens. With max_ngram=4, n is 1, 2, 3 or 4 with probability 40%, 30%, 20% and 10%
      as in MacBERT (Cui et al. 2020), which masks words, and puts similar words in place of [MASK]. In general the
      probability of n is proportional to max_ngram + 1 - n.

    The masks of a sentence depend only on the seed, the epoch and its row, and not on its batch.

    Args:
        tokenizer: The model's tokenizer.
        config: The ``masking`` group.

    Raises:
        InputError: when the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: MaskingConfig) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError("model.name_or_path: its tokenizer has no mask token, so the model cannot be pretrained")
        self.config, self.mask_id, self.vocab_size = config, int(tokenizer.mask_token_id), len(tokenizer)
        self.is_special = np.zeros(self.vocab_size, bool)
        self.is_special[tokenizer.all_special_ids] = True
        self.ngram_shares = np.arange(config.max_ngram, 0, -1) / (config.max_ngram * (config.max_ngram + 1) / 2)

    def collate(
        self, tokenized: TokenizedPairs, rows: np.ndarray, pair_tokenizer: PairTokenizer, key: tuple[int, ...]
    ) -> Batch:
        """Return the batch of the given rows with masks; its labels (B, T) are the ids of the predicted tokens.

        Args:
            tokenized: The sentences of a split.
            rows: Indices of the rows (B,).
            pair_tokenizer: Tokenised them.
            key: Of the random generator, to which each row is appended.
        """
        batch = collate(tokenized, rows, pair_tokenizer)
        tokens = batch.inputs["input_ids"].numpy()
        labels = np.full(tokens.shape, IGNORED)
        for index, row in enumerate(rows.tolist()):
            start, end = tokenized.offsets[row], tokenized.offsets[row + 1]
            words = None if tokenized.words is None else tokenized.words[start:end]
            labels[index, : end - start] = self.mask(
                tokens[index, : end - start], words, np.random.default_rng([*key, row])
            )
        return Batch(batch.inputs, torch.from_numpy(labels), batch.ids, batch.tokens)

    def mask(self, tokens: np.ndarray, words: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Mask the tokens (T,) of a sentence in place; return the labels (T,).

        Args:
            tokens: Token ids.
            words: The index of each token's word (T,), for whole-word masks.
            rng: Draws the masks.
        """
        labels = np.full(tokens.shape, IGNORED)
        candidates = np.flatnonzero(~self.is_special[tokens])
        chosen = self._choose(candidates, words, rng)
        labels[chosen] = tokens[chosen]
        draws = rng.random(len(chosen))
        random = rng.integers(self.vocab_size, size=len(chosen))
        replaced = np.where(draws < _MASK_SHARE + _RANDOM_SHARE, random, tokens[chosen])
        tokens[chosen] = np.where(draws < _MASK_SHARE, self.mask_id, replaced)
        return labels

    def _choose(self, candidates: np.ndarray, words: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Return the positions of the tokens to predict."""
        count = max(round(self.config.probability * len(candidates)), 1)
        units = self._units(candidates, words, rng)
        chosen: list[int] = []
        for index in rng.permutation(len(units)).tolist():
            if not chosen or len(chosen) + len(units[index]) <= count:
                chosen += units[index].tolist()
            if len(chosen) >= count:
                break
        return np.array(chosen, np.int64)

    def _units(self, candidates: np.ndarray, words: np.ndarray | None, rng: np.random.Generator) -> list[np.ndarray]:
        """Divide the positions of the tokens that may be masked into units."""
        if len(candidates) == 0:
            return []
        if self.config.unit is MaskingUnit.token:
            starts = np.arange(1, len(candidates))
        elif self.config.unit is MaskingUnit.whole_word:
            assert words is not None
            starts = np.flatnonzero(np.diff(words[candidates])) + 1
        else:
            lengths = rng.choice(len(self.ngram_shares), size=len(candidates), p=self.ngram_shares) + 1
            starts = np.cumsum(lengths)
            starts = starts[starts < len(candidates)]
        return np.split(candidates, starts)


class MaskedLoader(TrainLoader):
    """Yields the batches of each epoch, with new masks in each; see ``TrainLoader``."""

    def __init__(
        self,
        data: Pairs,
        pair_tokenizer: PairTokenizer,
        batch_size: int,
        seed: int,
        config: DatasetConfig,
        masker: Masker,
    ) -> None:
        super().__init__(data, pair_tokenizer, batch_size, seed, config)
        self.masker = masker

    def _batches(self, tokenized: TokenizedPairs, key: tuple[int, ...], skip: int) -> Iterator[Batch]:
        for rows in self._batch_rows(tokenized, np.random.default_rng(key))[skip:]:
            yield self.masker.collate(tokenized, rows, self.pair_tokenizer, (_TRAIN, *key))


def masked_eval_batches(
    tokenized: TokenizedPairs,
    pair_tokenizer: PairTokenizer,
    batch_size: int,
    masker: Masker,
    seed: int,
    shard: Shard = WHOLE,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the row indices and the batch of each batch of a shard, with the same masks in each evaluation."""
    for rows in eval_rows(tokenized.lengths, batch_size, shard):
        yield rows, masker.collate(tokenized, rows, pair_tokenizer, (_DEV, seed))
