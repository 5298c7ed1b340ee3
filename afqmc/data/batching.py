"""Batches as slices of flat arrays: which rows share one, in which order they come, and how they are padded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from afqmc.data.config import Batching, DatasetConfig
from afqmc.data.loading import Pairs, PairStream
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs

_POOL = 100  # batches sorted by length together


@dataclass(frozen=True)
class Batch:
    """Padded inputs (B, T) for the encoder, labels (B,) where known, the ids of the rows, and their tokens in all."""

    inputs: dict[str, Tensor]
    labels: Tensor | None
    ids: list[int | str]
    tokens: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def places(self) -> int:
        """B x T: tokens and padding."""
        return self.inputs["input_ids"].numel()

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        moved = {k: v.to(device, non_blocking=True) for k, v in self.inputs.items()}
        return Batch(moved, labels, self.ids, self.tokens)

    def split(self, parts: int) -> list[Batch]:
        """At most ``parts`` smaller batches of nearly equal size, in order."""
        if parts == 1:
            return [self]
        cuts = np.array_split(np.arange(len(self)), min(parts, len(self)))
        return [self._rows(slice(int(cut[0]), int(cut[-1]) + 1)) for cut in cuts]

    def share(self, rank: int, size: int) -> tuple[Batch, bool]:
        """The rows of one of ``size`` processes, padded as the whole is, and whether there are any.

        Where the rows are too few for all, a process gets one that does not count: it has to take part all the same.
        """
        if size == 1:
            return self, True
        first, end = (len(self) * number // size for number in (rank, rank + 1))
        counts = end > first
        return self._rows(slice(first, end) if counts else slice(0, 1), count_tokens=False), counts

    def _rows(self, rows: slice, count_tokens: bool = True) -> Batch:
        """Tokens are counted where they are asked for: on a GPU, that waits for it."""
        labels = None if self.labels is None else self.labels[rows]
        inputs = {k: v[rows] for k, v in self.inputs.items()}
        return Batch(inputs, labels, self.ids[rows], int(inputs["attention_mask"].sum()) if count_tokens else 0)


def collate(encoded: TokenizedPairs, rows: np.ndarray, encoder: PairTokenizer, pad_to_multiple_of: int = 1) -> Batch:
    """The given rows, padded on the right to the longest of them, or to the next multiple."""
    starts, lengths = encoded.offsets[rows], encoded.offsets[rows + 1] - encoded.offsets[rows]
    places = np.arange(-(-lengths.max() // pad_to_multiple_of) * pad_to_multiple_of)
    mask = places < lengths[:, None]  # (B, T)
    where = (starts[:, None] + places)[mask]
    tokens = np.full(mask.shape, encoder.pad_id, np.int64)
    tokens[mask] = encoded.tokens[where]
    inputs = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if encoder.uses_token_type_ids:
        segments = np.zeros(mask.shape, np.int64)
        segments[mask] = encoded.segments[where]
        inputs["token_type_ids"] = torch.from_numpy(segments)
    labels = None if encoded.labels is None else torch.from_numpy(encoded.labels[rows])
    return Batch(inputs, labels, [encoded.ids[row] for row in rows], len(where))


def chunked(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """An order of rows, cut."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def length_bucketed(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of rows of similar length, in random order.

    Pools of ``_POOL`` batches are sorted by length and cut, then all batches are shuffled, so that a batch meets
    other rows in each epoch.
    """
    batches = []
    for pool in chunked(order, _POOL * batch_size):
        batches += chunked(pool[np.argsort(lengths[pool], kind="stable")], batch_size)
    return [batches[number] for number in rng.permutation(len(batches))]


def token_budget(order: np.ndarray, lengths: np.ndarray, budget: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of rows of similar length with at most ``budget`` places, padding included, in random order.

    All rows are sorted by length, those of equal length in the given order: where a batch ends then depends on the
    lengths alone, and every epoch has as many batches.
    """
    rows = order[np.argsort(lengths[order], kind="stable")]
    ascending = lengths[rows]
    batches, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or ascending[end] * (end + 1 - start) > budget:
            batches.append(rows[start:end])
            start = end
    return [batches[number] for number in rng.permutation(len(batches))]


def count_token_budget_batches(lengths: np.ndarray, budget: int) -> int:
    """The number of batches that ``token_budget`` makes, the same in every epoch."""
    return len(token_budget(np.arange(len(lengths)), lengths, budget, np.random.default_rng(0)))


class TrainLoader:
    """The batches of each epoch: every pair once, in an order that depends on seed and epoch alone."""

    def __init__(
        self,
        data: Pairs | PairStream,
        encoder: PairTokenizer,
        batch_size: int,
        seed: int,
        config: DatasetConfig,
    ) -> None:
        self.data, self.encoder, self.batch_size, self.seed, self.config = data, encoder, batch_size, seed, config
        self.window = max(config.shuffle_buffer // batch_size, 1) * batch_size  # of a stream, in whole batches
        self._encoded = encoder.tokenize_cached(data) if isinstance(data, Pairs) else None

    def __len__(self) -> int:
        if self.config.batching is Batching.tokens:
            assert self._encoded is not None
            return count_token_budget_batches(self._encoded.lengths, self.config.batch_tokens)
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number``, counted from 0, less the first ``skip``; a stream is shuffled by windows."""
        if self._encoded is not None:
            yield from self._batches(self._encoded, (self.seed, number), skip)
            return
        assert isinstance(self.data, PairStream)
        a_window = self.window // self.batch_size  # batches
        for part, chunk in enumerate(self.data.chunks(self.window)):
            if skip >= a_window:  # read and counted, not tokenised
                skip -= a_window
                continue
            yield from self._batches(self.encoder.encode(chunk), (self.seed, number, part), skip)
            skip = 0

    def _batches(self, encoded: TokenizedPairs, key: tuple[int, ...], skip: int) -> Iterator[Batch]:
        for rows in self._cut(encoded, np.random.default_rng(key))[skip:]:
            yield collate(encoded, rows, self.encoder)

    def _cut(self, encoded: TokenizedPairs, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(len(encoded))
        if self.config.batching is Batching.bucketed:
            return length_bucketed(order, encoded.lengths, self.batch_size, rng)
        if self.config.batching is Batching.tokens:
            return token_budget(order, encoded.lengths, self.config.batch_tokens, rng)
        return chunked(order, self.batch_size)


@dataclass(frozen=True)
class Shard:
    """Whole batches, dealt out in turn to ``size`` processes, of which this is number ``rank``."""

    rank: int = 0
    size: int = 1


WHOLE = Shard()


def eval_batches(
    encoded: TokenizedPairs, encoder: PairTokenizer, batch_size: int, share: Shard = WHOLE
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of rows of similar length, longest first, each with the row numbers it holds.

    A batch is made of the same rows however many processes there are, and each process gets as many as the others:
    in the last round those for whom none is left get the last one again.
    """
    batches = chunked(np.argsort(-encoded.lengths, kind="stable"), batch_size)
    for first in range(0, len(batches), share.size):
        rows = batches[min(first + share.rank, len(batches) - 1)]
        yield rows, collate(encoded, rows, encoder)
