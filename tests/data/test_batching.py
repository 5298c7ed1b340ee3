"""Batching: batches match the tokenizer's own output, and each epoch has every pair once."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from afqmc.data.batching import TrainLoader, collate, eval_batches
from afqmc.data.config import Batching, DatasetConfig
from afqmc.data.loading import PairStream
from afqmc.data.parsing import Pair
from afqmc.data.stream_changes import StreamTrace
from afqmc.data.tokenization import PairTokenizer

MAX_LENGTH = 24  # cuts about half of the pairs


@pytest.fixture
def pair_tokenizer(tiny_tokenizer):
    return PairTokenizer(tiny_tokenizer, MAX_LENGTH)


@pytest.fixture
def stream(pairs):
    """Return the pairs as a stream."""
    columns = zip(pairs.ids, pairs.sentence1, pairs.sentence2, map(str, pairs.labels), range(50), strict=True)
    rows = [Pair(*column) for column in columns]
    trace = StreamTrace()
    for row in rows:
        trace.add(row)
    return PairStream("pairs.jsonl", lambda: iter(rows), {"0": 0, "1": 1}, list(np.bincount(pairs.labels)), trace)


def ids(batches):
    return [pair_id for batch in batches for pair_id in batch.ids]


@pytest.mark.parametrize("max_length", [8, MAX_LENGTH, 512])
def test_batch_matches_tokenizer(pairs, tiny_tokenizer, max_length):
    """A batch equals the output of the tokenizer's own padding."""
    pair_tokenizer = PairTokenizer(tiny_tokenizer, max_length)
    tokenized = pair_tokenizer.encode(pairs)
    rng = np.random.default_rng(0)
    for size in (1, 3, 8, 50):
        rows = rng.choice(50, size, replace=False)
        batch = collate(tokenized, rows, pair_tokenizer)
        expected = tiny_tokenizer(
            [pairs.sentence1[row] for row in rows],
            [pairs.sentence2[row] for row in rows],
            truncation="longest_first",
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        assert batch.inputs.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(batch.inputs[name], tensor), name
        assert batch.labels.tolist() == [pairs.labels[row] for row in rows]
        assert batch.ids == rows.tolist()


def test_chunks_do_not_matter(pairs, pair_tokenizer, monkeypatch):
    """Tokenising in chunks does not change the result."""
    full = pair_tokenizer.encode(pairs)
    monkeypatch.setattr("afqmc.data.tokenization._CHUNK", 7)
    parts = pair_tokenizer.encode(pairs)
    assert len(parts) == 50
    for name in ("tokens", "segments", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(full, name), getattr(parts, name))


def test_tokenizer_without_segments(pairs, tiny_tokenizer, monkeypatch):
    """A tokenizer without segments yields no token_type_ids."""
    monkeypatch.setattr(tiny_tokenizer, "model_input_names", ["input_ids", "attention_mask"])
    pair_tokenizer = PairTokenizer(tiny_tokenizer, MAX_LENGTH)
    batch = collate(pair_tokenizer.encode(pairs), np.arange(4), pair_tokenizer)
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


def test_unlabelled_batches(pairs, pair_tokenizer):
    """Unlabelled pairs make unlabelled batches."""
    batch = collate(pair_tokenizer.encode(replace(pairs, labels=None)), np.arange(4), pair_tokenizer)
    assert batch.labels is None
    assert [part.labels for part in batch.split(2)] == [None, None]


@pytest.mark.parametrize("batch_size", [1, 8, 50, 64])
def test_epoch_has_every_pair_once(pairs, pair_tokenizer, batch_size):
    """An epoch has every pair exactly once."""
    batches = TrainLoader(
        pairs, pair_tokenizer, batch_size, 1, DatasetConfig(shuffle_buffer_size=10, batching=Batching.random)
    )
    result = list(batches.epoch(0))
    assert sorted(ids(result)) == list(range(50))
    assert len(result) == len(batches)
    assert {len(batch) for batch in result[:-1]} <= {batch_size}


def test_order_depends_on_seed_and_epoch(pairs, pair_tokenizer):
    """The order depends only on the seed and the epoch."""

    def order(seed, epoch, batch_size=8):
        return ids(
            TrainLoader(
                pairs, pair_tokenizer, batch_size, seed, DatasetConfig(shuffle_buffer_size=10, batching=Batching.random)
            ).epoch(epoch)
        )

    torch.manual_seed(0)
    first = order(1, 0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert order(1, 0) == order(1, 0, batch_size=5) == first
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert np.random.default_rng((1, 0)).permutation(50).tolist() == first


@pytest.mark.parametrize("buffer", [1, 20, 10_000])
def test_streamed_epoch(stream, pair_tokenizer, buffer):
    """A streamed epoch has every pair once, and each epoch has a different order."""
    batches = TrainLoader(
        stream, pair_tokenizer, 8, 1, DatasetConfig(shuffle_buffer_size=buffer, batching=Batching.random)
    )
    epochs = [list(batches.epoch(number)) for number in (0, 0, 1)]
    for result in epochs:
        assert sorted(ids(result)) == list(range(50))
        assert [len(batch) for batch in result] == [8] * 6 + [2]
    assert len(batches) == 7
    assert ids(epochs[0]) == ids(epochs[1]) != ids(epochs[2])


def test_stream_is_shuffled_in_windows(stream, pair_tokenizer):
    """A stream is shuffled within its buffer only."""
    config = DatasetConfig(shuffle_buffer_size=20, batching=Batching.random)
    result = ids(TrainLoader(stream, pair_tokenizer, 8, 1, config).epoch(0))
    for start in range(0, 50, 16):  # whole batches
        assert sorted(result[start : start + 16]) == list(range(start, min(start + 16, 50)))
    assert result != sorted(result)


def test_streamed_pair(stream, pairs, pair_tokenizer):
    """A streamed pair has its own tokens and label."""
    tokenized = pair_tokenizer.encode(pairs)
    for batch in TrainLoader(
        stream, pair_tokenizer, 8, 1, DatasetConfig(shuffle_buffer_size=20, batching=Batching.random)
    ).epoch(3):
        expected = collate(tokenized, np.array(batch.ids), pair_tokenizer)
        assert torch.equal(batch.inputs["input_ids"], expected.inputs["input_ids"])
        assert torch.equal(batch.labels, expected.labels)


@pytest.mark.parametrize("batch_size", [1, 8, 50, 64])
def test_bucketed_epoch(pairs, pair_tokenizer, batch_size):
    """A bucketed epoch has every pair once, and each epoch has a different order."""
    batches = TrainLoader(pairs, pair_tokenizer, batch_size, 1, DatasetConfig(batching=Batching.length))
    epochs = [list(batches.epoch(number)) for number in (0, 0, 1)]
    for result in epochs:
        assert sorted(ids(result)) == list(range(50))
        assert len(result) == len(batches)
    assert ids(epochs[0]) == ids(epochs[1])
    assert batch_size >= 50 or ids(epochs[0]) != ids(epochs[2])


def test_bucketed_batches_have_less_padding(pairs, pair_tokenizer):
    """Bucketed batches have less padding than random ones."""

    def tokens(batching):
        result = TrainLoader(pairs, pair_tokenizer, 8, 1, DatasetConfig(batching=batching)).epoch(0)
        return sum(batch.inputs["input_ids"].numel() for batch in result)

    assert tokens(Batching.length) < tokens(Batching.random)


def test_bucketed_stream(stream, pair_tokenizer):
    """A bucketed stream has every pair once."""
    config = DatasetConfig(shuffle_buffer_size=20, batching=Batching.length)
    assert sorted(ids(TrainLoader(stream, pair_tokenizer, 8, 1, config).epoch(0))) == list(range(50))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_eval_batches(pairs, pair_tokenizer, batch_size):
    """Evaluation covers every row once, longest first."""
    tokenized = pair_tokenizer.encode(pairs)
    result = list(eval_batches(tokenized, pair_tokenizer, batch_size))
    assert sorted(np.concatenate([rows for rows, _ in result])) == list(range(50))
    assert all(batch.ids == rows.tolist() for rows, batch in result)
    widths = [batch.inputs["input_ids"].shape[1] for _, batch in result]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("parts", "sizes"), [(1, [10]), (2, [5, 5]), (3, [4, 3, 3]), (10, [1] * 10), (64, [1] * 10)])
def test_split(pairs, pair_tokenizer, parts, sizes):
    """A batch is split into microbatches of nearly equal size, in order."""
    batch = collate(pair_tokenizer.encode(pairs), np.arange(20, 30), pair_tokenizer)
    result = batch.split(parts)
    assert [len(part) for part in result] == sizes
    assert ids(result) == batch.ids
    assert torch.equal(torch.cat([part.labels for part in result]), batch.labels)
    for name, tensor in batch.inputs.items():
        assert torch.equal(torch.cat([part.inputs[name] for part in result]), tensor)


def test_batch_to_device(pairs, pair_tokenizer):
    """All tensors of a batch move to a device."""
    batch = collate(pair_tokenizer.encode(pairs), np.arange(3), pair_tokenizer).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*batch.inputs.values(), batch.labels)} == {"meta"}
    assert batch.ids == [0, 1, 2]


TOKENS = DatasetConfig(batching=Batching.token_budget, max_tokens_per_batch=100)


def test_token_budget(pairs, pair_tokenizer):
    """With a token budget, an epoch has every pair once and no batch exceeds the budget."""
    batches = TrainLoader(pairs, pair_tokenizer, 8, 1, TOKENS)
    for number in range(3):
        result = list(batches.epoch(number))
        assert sorted(ids(result)) == list(range(50))
        assert all(batch.padded_tokens <= 100 for batch in result)
        assert len(result) == len(batches)
    assert ids(batches.epoch(0)) != ids(batches.epoch(1))


def test_token_budget_is_used(pairs, pair_tokenizer):
    """A batch ends only if the next pair would exceed the budget."""
    batches = TrainLoader(pairs, pair_tokenizer, 8, 1, TOKENS).epoch(0)
    result = sorted(batches, key=lambda batch: (batch.padded_tokens // len(batch), -len(batch)))
    for batch, following in itertools.pairwise(result):
        shortest = int(following.inputs["attention_mask"].sum(dim=1).min())
        assert (len(batch) + 1) * shortest > 100


@pytest.mark.parametrize("batching", list(Batching))
def test_token_count(pairs, pair_tokenizer, batching):
    """A batch counts its tokens without padding."""
    for batch in TrainLoader(pairs, pair_tokenizer, 8, 1, replace(TOKENS, batching=batching)).epoch(0):
        assert batch.tokens == batch.inputs["attention_mask"].sum() <= batch.padded_tokens
        assert sum(part.tokens for part in batch.split(3)) == batch.tokens
