"""Batching: what the model sees is what the tokenizer says, and every pair is seen once an epoch."""

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
def encoder(tiny_tokenizer):
    return PairTokenizer(tiny_tokenizer, MAX_LENGTH)


@pytest.fixture
def stream(pairs):
    """The pairs as a stream."""
    columns = zip(pairs.ids, pairs.sentence1, pairs.sentence2, map(str, pairs.labels), range(50), strict=True)
    rows = [Pair(*column) for column in columns]
    trace = StreamTrace()
    for row in rows:
        trace.add(row)
    return PairStream("pairs.jsonl", lambda: iter(rows), {"0": 0, "1": 1}, list(np.bincount(pairs.labels)), trace)


def ids(batches):
    return [identity for batch in batches for identity in batch.ids]


@pytest.mark.parametrize("max_length", [8, MAX_LENGTH, 512])
def test_a_batch_is_what_the_tokenizer_pads_itself(pairs, tiny_tokenizer, max_length):
    encoder = PairTokenizer(tiny_tokenizer, max_length)
    encoded = encoder.encode(pairs)
    rng = np.random.default_rng(0)
    for size in (1, 3, 8, 50):
        rows = rng.choice(50, size, replace=False)
        batch = collate(encoded, rows, encoder)
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


def test_pairs_are_encoded_alike_in_one_go_and_in_chunks(pairs, encoder, monkeypatch):
    whole = encoder.encode(pairs)
    monkeypatch.setattr("afqmc.data.tokenization._CHUNK", 7)
    parts = encoder.encode(pairs)
    assert len(parts) == 50
    for name in ("tokens", "segments", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_a_tokenizer_without_segments_gives_none(pairs, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "model_input_names", ["input_ids", "attention_mask"])
    encoder = PairTokenizer(tiny_tokenizer, MAX_LENGTH)
    batch = collate(encoder.encode(pairs), np.arange(4), encoder)
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


def test_unlabelled_pairs_make_unlabelled_batches(pairs, encoder):
    batch = collate(encoder.encode(replace(pairs, labels=None)), np.arange(4), encoder)
    assert batch.labels is None
    assert [part.labels for part in batch.split(2)] == [None, None]


@pytest.mark.parametrize("batch_size", [1, 8, 50, 64])
def test_every_pair_is_in_an_epoch_exactly_once(pairs, encoder, batch_size):
    batches = TrainLoader(pairs, encoder, batch_size, 1, DatasetConfig(shuffle_buffer=10, batching=Batching.random))
    found = list(batches.epoch(0))
    assert sorted(ids(found)) == list(range(50))
    assert len(found) == len(batches)
    assert {len(batch) for batch in found[:-1]} <= {batch_size}


def test_the_order_depends_on_seed_and_epoch_alone(pairs, encoder):
    def order(seed, epoch, batch_size=8):
        return ids(
            TrainLoader(
                pairs, encoder, batch_size, seed, DatasetConfig(shuffle_buffer=10, batching=Batching.random)
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
def test_a_streamed_epoch_has_every_pair_once_and_an_order_of_its_own(stream, encoder, buffer):
    batches = TrainLoader(stream, encoder, 8, 1, DatasetConfig(shuffle_buffer=buffer, batching=Batching.random))
    epochs = [list(batches.epoch(number)) for number in (0, 0, 1)]
    for found in epochs:
        assert sorted(ids(found)) == list(range(50))
        assert [len(batch) for batch in found] == [8] * 6 + [2]
    assert len(batches) == 7
    assert ids(epochs[0]) == ids(epochs[1]) != ids(epochs[2])


def test_a_stream_is_shuffled_within_its_buffer_only(stream, encoder):
    found = ids(TrainLoader(stream, encoder, 8, 1, DatasetConfig(shuffle_buffer=20, batching=Batching.random)).epoch(0))
    for start in range(0, 50, 16):  # whole batches
        assert sorted(found[start : start + 16]) == list(range(start, min(start + 16, 50)))
    assert found != sorted(found)


def test_a_streamed_pair_keeps_its_own_tokens_and_label(stream, pairs, encoder):
    encoded = encoder.encode(pairs)
    for batch in TrainLoader(stream, encoder, 8, 1, DatasetConfig(shuffle_buffer=20, batching=Batching.random)).epoch(
        3
    ):
        expected = collate(encoded, np.array(batch.ids), encoder)
        assert torch.equal(batch.inputs["input_ids"], expected.inputs["input_ids"])
        assert torch.equal(batch.labels, expected.labels)


@pytest.mark.parametrize("batch_size", [1, 8, 50, 64])
def test_a_bucketed_epoch_has_every_pair_once_and_an_order_of_its_own(pairs, encoder, batch_size):
    batches = TrainLoader(pairs, encoder, batch_size, 1, DatasetConfig(batching=Batching.bucketed))
    epochs = [list(batches.epoch(number)) for number in (0, 0, 1)]
    for found in epochs:
        assert sorted(ids(found)) == list(range(50))
        assert len(found) == len(batches)
    assert ids(epochs[0]) == ids(epochs[1])
    assert batch_size >= 50 or ids(epochs[0]) != ids(epochs[2])


def test_bucketed_batches_have_less_padding(pairs, encoder):
    def tokens(batching):
        found = TrainLoader(pairs, encoder, 8, 1, DatasetConfig(batching=batching)).epoch(0)
        return sum(batch.inputs["input_ids"].numel() for batch in found)

    assert tokens(Batching.bucketed) < tokens(Batching.random)


def test_a_bucketed_stream_has_every_pair_once(stream, encoder):
    config = DatasetConfig(shuffle_buffer=20, batching=Batching.bucketed)
    assert sorted(ids(TrainLoader(stream, encoder, 8, 1, config).epoch(0))) == list(range(50))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_evaluation_covers_every_row_once_longest_first(pairs, encoder, batch_size):
    encoded = encoder.encode(pairs)
    found = list(eval_batches(encoded, encoder, batch_size))
    assert sorted(np.concatenate([rows for rows, _ in found])) == list(range(50))
    assert all(batch.ids == rows.tolist() for rows, batch in found)
    widths = [batch.inputs["input_ids"].shape[1] for _, batch in found]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("parts", "sizes"), [(1, [10]), (2, [5, 5]), (3, [4, 3, 3]), (10, [1] * 10), (64, [1] * 10)])
def test_a_batch_splits_into_nearly_equal_parts_in_order(pairs, encoder, parts, sizes):
    batch = collate(encoder.encode(pairs), np.arange(20, 30), encoder)
    found = batch.split(parts)
    assert [len(part) for part in found] == sizes
    assert ids(found) == batch.ids
    assert torch.equal(torch.cat([part.labels for part in found]), batch.labels)
    for name, tensor in batch.inputs.items():
        assert torch.equal(torch.cat([part.inputs[name] for part in found]), tensor)


def test_a_batch_moves_to_a_device_whole(pairs, encoder):
    batch = collate(encoder.encode(pairs), np.arange(3), encoder).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*batch.inputs.values(), batch.labels)} == {"meta"}
    assert batch.ids == [0, 1, 2]


TOKENS = DatasetConfig(batching=Batching.tokens, batch_tokens=100)


def test_batches_of_a_token_budget_hold_every_pair_once_and_keep_to_it(pairs, encoder):
    batches = TrainLoader(pairs, encoder, 8, 1, TOKENS)
    for number in range(3):
        found = list(batches.epoch(number))
        assert sorted(ids(found)) == list(range(50))
        assert all(batch.padded_tokens <= 100 for batch in found)
        assert len(found) == len(batches)
    assert ids(batches.epoch(0)) != ids(batches.epoch(1))


def test_a_batch_ends_only_where_the_next_pair_would_break_the_budget(pairs, encoder):
    batches = TrainLoader(pairs, encoder, 8, 1, TOKENS).epoch(0)
    found = sorted(batches, key=lambda batch: (batch.padded_tokens // len(batch), -len(batch)))
    for batch, following in itertools.pairwise(found):
        shortest = int(following.inputs["attention_mask"].sum(dim=1).min())
        assert (len(batch) + 1) * shortest > 100


@pytest.mark.parametrize("batching", list(Batching))
def test_a_batch_knows_its_tokens_from_its_padding(pairs, encoder, batching):
    for batch in TrainLoader(pairs, encoder, 8, 1, replace(TOKENS, batching=batching)).epoch(0):
        assert batch.tokens == batch.inputs["attention_mask"].sum() <= batch.padded_tokens
        assert sum(part.tokens for part in batch.split(3)) == batch.tokens
