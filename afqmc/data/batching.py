"""Group tokenised pairs into padded batches for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from afqmc.data.config import Batching, DatasetConfig
from afqmc.data.loading import Pairs, PairStream
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs

_BUCKET = 100  # batches that are sorted by length together


@dataclass(frozen=True)
class Batch:
    """A padded batch of B pairs.

    Attributes:
        inputs: Arguments of the encoder, such as ``input_ids``, each (B, T).
        labels: Class indices, (B,); None if unlabelled. In pretraining, token ids (B, T), see ``afqmc.data.masking``.
        ids: The pairs' ids.
        tokens: Number of tokens without padding.
        teacher_logits: Logits of a teacher, (B, C) float32; None without one. The label of an unlabelled pair, which
            only a teacher scores, is -100.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    ids: list[int | str]
    tokens: int
    teacher_logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def padded_tokens(self) -> int:
        """Number of tokens with padding, B x T."""
        return self.inputs["input_ids"].numel()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        teacher = None if self.teacher_logits is None else self.teacher_logits.to(device, non_blocking=True)
        moved = {k: v.to(device, non_blocking=True) for k, v in self.inputs.items()}
        return Batch(moved, labels, self.ids, self.tokens, teacher)

    def split(self, count: int) -> list[Batch]:
        """Split into at most ``count`` microbatches of nearly equal size, in order."""
        if count == 1:
            return [self]
        chunks = np.array_split(np.arange(len(self)), min(count, len(self)))
        return [self._rows(slice(int(chunk[0]), int(chunk[-1]) + 1)) for chunk in chunks]

    def shard(self, rank: int, size: int) -> tuple[Batch, bool]:
        """Return the rows of one of ``size`` ranks, padded to this batch's T, and whether they count.

        A batch of fewer than ``size`` rows leaves some ranks without any. Such a rank gets a row that does not count,
        because all ranks have to take part in the collective operations.
        """
        if size == 1:
            return self, True
        start, end = (len(self) * index // size for index in (rank, rank + 1))
        counts = end > start
        return self._rows(slice(start, end) if counts else slice(0, 1), count_tokens=False), counts

    def _rows(self, rows: slice, count_tokens: bool = True) -> Batch:
        """Return some rows. Counting their tokens is optional because it synchronises with a GPU."""
        labels = None if self.labels is None else self.labels[rows]
        teacher = None if self.teacher_logits is None else self.teacher_logits[rows]
        inputs = {k: v[rows] for k, v in self.inputs.items()}
        tokens = int(inputs["attention_mask"].sum()) if count_tokens else 0
        return Batch(inputs, labels, self.ids[rows], tokens, teacher)


def collate(
    tokenized: TokenizedPairs, rows: np.ndarray, pair_tokenizer: PairTokenizer, pad_to_multiple_of: int = 1
) -> Batch:
    """Return a batch of the given rows, padded on the right to the longest, rounded up to ``pad_to_multiple_of``."""
    starts, lengths = tokenized.offsets[rows], tokenized.offsets[rows + 1] - tokenized.offsets[rows]
    positions = np.arange(-(-lengths.max() // pad_to_multiple_of) * pad_to_multiple_of)  # (T,)
    mask = positions < lengths[:, None]  # (B, T)
    sources = (starts[:, None] + positions)[mask]  # indices into the flat arrays
    tokens = np.full(mask.shape, pair_tokenizer.pad_id, np.int64)
    tokens[mask] = tokenized.tokens[sources]
    inputs = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if pair_tokenizer.uses_token_type_ids:
        segments = np.zeros(mask.shape, np.int64)
        segments[mask] = tokenized.segments[sources]
        inputs["token_type_ids"] = torch.from_numpy(segments)
    labels = None if tokenized.labels is None else torch.from_numpy(tokenized.labels[rows])
    teacher = None if tokenized.teacher_logits is None else torch.from_numpy(tokenized.teacher_logits[rows])
    return Batch(inputs, labels, [tokenized.ids[row] for row in rows], len(sources), teacher)


def chunked(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut rows into batches, in order; the last one may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def length_bucketed(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return batches of rows of similar length, in random order.

    The order is cut into buckets of ``_BUCKET`` batches. Each bucket is sorted by length and cut into batches, and then
    all batches are shuffled. A random order thus groups different rows in each epoch.

    Args:
        order: Row indices, usually shuffled.
        lengths: Tokens per row, indexed by row.
        batch_size: Rows per batch.
        rng: Shuffles the batches.
    """
    batches = []
    for bucket in chunked(order, _BUCKET * batch_size):
        batches += chunked(bucket[np.argsort(lengths[bucket], kind="stable")], batch_size)
    return [batches[index] for index in rng.permutation(len(batches))]


def token_budget(order: np.ndarray, lengths: np.ndarray, budget: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return batches of rows of similar length with at most ``budget`` tokens including padding, in random order.

    All rows are sorted by length, and rows of equal length stay in the given order. The batch boundaries then depend on
    the lengths alone, so every epoch has the same number of batches.
    """
    rows = order[np.argsort(lengths[order], kind="stable")]
    ascending = lengths[rows]
    batches, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or ascending[end] * (end + 1 - start) > budget:
            batches.append(rows[start:end])
            start = end
    return [batches[index] for index in rng.permutation(len(batches))]


def count_token_budget_batches(lengths: np.ndarray, budget: int) -> int:
    """Return the number of batches per epoch that ``token_budget`` makes."""
    return len(token_budget(np.arange(len(lengths)), lengths, budget, np.random.default_rng(0)))


class TrainLoader:
    """Yields the batches of each epoch: every pair once, in an order that depends only on the seed and the epoch."""

    def __init__(
        self,
        data: Pairs | PairStream,
        pair_tokenizer: PairTokenizer,
        batch_size: int,
        seed: int,
        config: DatasetConfig,
    ) -> None:
        self.data, self.pair_tokenizer, self.config = data, pair_tokenizer, config
        self.batch_size, self.seed = batch_size, seed
        self.shuffle_window = max(config.shuffle_buffer_size // batch_size, 1) * batch_size  # in pairs, whole batches
        self._tokenized = pair_tokenizer.tokenize_cached(data) if isinstance(data, Pairs) else None

    def __len__(self) -> int:
        if self.config.batching is Batching.token_budget:
            assert self._tokenized is not None
            return count_token_budget_batches(self._tokenized.lengths, self.config.max_tokens_per_batch)
        return -(-len(self.data) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, except the first ``skip``.

        A stream is shuffled within consecutive windows of ``shuffle_buffer_size`` pairs.
        """
        if self._tokenized is not None:
            yield from self._batches(self._tokenized, (self.seed, epoch), skip)
            return
        assert isinstance(self.data, PairStream)
        batches_per_window = self.shuffle_window // self.batch_size
        for window, chunk in enumerate(self.data.chunks(self.shuffle_window)):
            if skip >= batches_per_window:  # the skipped pairs are read and checked, but not tokenised
                skip -= batches_per_window
                continue
            yield from self._batches(self.pair_tokenizer.encode(chunk), (self.seed, epoch, window), skip)
            skip = 0

    def _batches(self, tokenized: TokenizedPairs, key: tuple[int, ...], skip: int) -> Iterator[Batch]:
        for rows in self._batch_rows(tokenized, np.random.default_rng(key))[skip:]:
            yield collate(tokenized, rows, self.pair_tokenizer)

    def _batch_rows(self, tokenized: TokenizedPairs, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(len(tokenized))
        if self.config.batching is Batching.length:
            return length_bucketed(order, tokenized.lengths, self.batch_size, rng)
        if self.config.batching is Batching.token_budget:
            return token_budget(order, tokenized.lengths, self.config.max_tokens_per_batch, rng)
        return chunked(order, self.batch_size)


@dataclass(frozen=True)
class Shard:
    """The batches of one rank in evaluation: batch ``i`` belongs to rank ``i % size``."""

    rank: int = 0
    size: int = 1


WHOLE = Shard()


def eval_rows(lengths: np.ndarray, batch_size: int, shard: Shard = WHOLE) -> Iterator[np.ndarray]:
    """Yield the row indices of each batch of a shard; rows are sorted by length, longest first.

    The rows of a batch do not depend on the number of ranks. All ranks get the same number of batches: in the last
    round, the ranks without a batch of their own repeat the last one.
    """
    batches = chunked(np.argsort(-lengths, kind="stable"), batch_size)
    for start in range(0, len(batches), shard.size):
        yield batches[min(start + shard.rank, len(batches) - 1)]


def eval_batches(
    tokenized: TokenizedPairs, pair_tokenizer: PairTokenizer, batch_size: int, shard: Shard = WHOLE
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the row indices and the batch of each batch of a shard; see ``eval_rows``."""
    for rows in eval_rows(tokenized.lengths, batch_size, shard):
        yield rows, collate(tokenized, rows, pair_tokenizer)
