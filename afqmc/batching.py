"""Pairs to tensors: token ids in flat arrays, and batches as slices of them, padded to their longest row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from afqmc.dataset.config import Batching, DatasetConfig
from afqmc.dataset.splits import Pairs, PairStream

_CHUNK = 4096  # pairs tokenised at once
_POOL = 100  # batches sorted by length together


@dataclass(frozen=True)
class Batch:
    """Padded inputs (B, T) for the encoder, labels (B,) where known, and the ids of the rows."""

    inputs: dict[str, Tensor]
    labels: Tensor | None
    ids: list[int | str]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch({k: v.to(device, non_blocking=True) for k, v in self.inputs.items()}, labels, self.ids)

    def split(self, parts: int) -> list[Batch]:
        """At most ``parts`` smaller batches of nearly equal size, in order."""
        cuts = np.array_split(np.arange(len(self)), min(parts, len(self)))
        return [self._rows(slice(int(cut[0]), int(cut[-1]) + 1)) for cut in cuts]

    def _rows(self, rows: slice) -> Batch:
        labels = None if self.labels is None else self.labels[rows]
        return Batch({k: v[rows] for k, v in self.inputs.items()}, labels, self.ids[rows])


@dataclass(frozen=True)
class Encoded:
    """A split as tokens: row ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``, int32, segments likewise."""

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


class Encoder:
    """Encodes pairs as [CLS] a [SEP] b [SEP], cutting the longer sentence first where a pair exceeds the limit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        pad = tokenizer.pad_token_id
        self.pad_id: int = 0 if pad is None else int(pad)
        self.with_segments = "token_type_ids" in tokenizer.model_input_names

    def encode(self, pairs: Pairs) -> Encoded:
        """All pairs of a split, or of a chunk of a stream, as flat arrays."""
        tokens, segments, lengths = [], [], []
        for start in range(0, len(pairs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            found = self.tokenizer(
                pairs.sentence1[rows],
                pairs.sentence2[rows],
                truncation="longest_first",
                max_length=self.max_length,
                return_token_type_ids=self.with_segments,
                return_attention_mask=False,
            )
            lengths += [len(row) for row in found["input_ids"]]
            tokens.append(_flat(found["input_ids"], np.int32))
            segments.append(_flat(found["token_type_ids"], np.int8) if self.with_segments else np.empty(0, np.int8))
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        labels = None if pairs.labels is None else np.asarray(pairs.labels, np.int64)
        return Encoded(np.concatenate(tokens), np.concatenate(segments), offsets, labels, pairs.ids)

    def collate(self, encoded: Encoded, rows: np.ndarray) -> Batch:
        """The given rows, padded on the right to the longest of them."""
        starts, lengths = encoded.offsets[rows], encoded.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
        where = (starts[:, None] + np.arange(lengths.max()))[mask]
        tokens = np.full(mask.shape, self.pad_id, np.int64)
        tokens[mask] = encoded.tokens[where]
        inputs = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if self.with_segments:
            segments = np.zeros(mask.shape, np.int64)
            segments[mask] = encoded.segments[where]
            inputs["token_type_ids"] = torch.from_numpy(segments)
        labels = None if encoded.labels is None else torch.from_numpy(encoded.labels[rows])
        return Batch(inputs, labels, [encoded.ids[row] for row in rows])


def _flat(rows: list[list[int]], kind: type[np.generic]) -> np.ndarray:
    return np.fromiter((token for row in rows for token in row), kind)


def cut(order: np.ndarray, lengths: np.ndarray | None, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """An order of rows as batches; with ``lengths``, of rows of similar length, in random order.

    Pools of ``_POOL`` batches are sorted by length and cut, then all batches are shuffled, so that a batch meets
    other rows in each epoch.
    """
    if lengths is None:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = order[start : start + _POOL * batch_size]
        batches += cut(pool[np.argsort(lengths[pool], kind="stable")], None, batch_size, rng)
    return [batches[number] for number in rng.permutation(len(batches))]


class TrainBatches:
    """The batches of each epoch: every pair once, in an order that depends on seed and epoch alone."""

    def __init__(
        self, data: Pairs | PairStream, encoder: Encoder, batch_size: int, seed: int, config: DatasetConfig
    ) -> None:
        self.data, self.encoder, self.batch_size, self.seed = data, encoder, batch_size, seed
        self.bucketed = config.batching is Batching.bucketed
        self.window = max(config.shuffle_buffer // batch_size, 1) * batch_size  # of a stream, in whole batches
        self._encoded = encoder.encode(data) if isinstance(data, Pairs) else None

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``, counted from 0; a stream is shuffled a window at a time."""
        if self._encoded is not None:
            yield from self._batches(self._encoded, (self.seed, number))
            return
        assert isinstance(self.data, PairStream)
        for part, chunk in enumerate(self.data.chunks(self.window)):
            yield from self._batches(self.encoder.encode(chunk), (self.seed, number, part))

    def _batches(self, encoded: Encoded, key: tuple[int, ...]) -> Iterator[Batch]:
        rng = np.random.default_rng(key)
        order = rng.permutation(len(encoded))
        for rows in cut(order, encoded.lengths if self.bucketed else None, self.batch_size, rng):
            yield self.encoder.collate(encoded, rows)


def eval_batches(encoded: Encoded, encoder: Encoder, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of rows of similar length, longest first, each with the row numbers it holds."""
    order = np.argsort(-encoded.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, encoder.collate(encoded, rows)
