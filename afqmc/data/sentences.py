"""The sentences of ``afqmc pretrain``: those of the train split, without those of dev and test."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from afqmc.data.config import DatasetConfig
from afqmc.data.loading import Dataset, Pairs, load_dataset
from afqmc.utils.errors import InputError

PRETRAINING_FILE = "pretraining_sentences.txt"  # beside the weights: one hash per line

_HASH_DIGITS = 16  # of a sha256, so that two of 10 million sentences share a hash with a probability of 3e-6


@dataclass(frozen=True)
class SentenceCounts:
    """How the sentences of the train split were used, for summary.json.

    Attributes:
        unique: Different sentences in the train split.
        in_dev: Of these, sentences that occur in the dev split too, and are left out.
        in_test: The same for the test split.
        excluded: Sentences that are left out because they occur in dev or test.
        pretrained: Sentences to train on.
        held_out: Sentences of which dev/loss is computed.
    """

    unique: int
    in_dev: int
    in_test: int
    excluded: int
    pretrained: int
    held_out: int


def sentence_key(text: str) -> str:
    """Return what two sentences that count as equal have in common: no case, no spaces, NFKC."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def sentence_hash(text: str) -> str:
    """Return the first 16 hex digits of the sha256 of a sentence's key."""
    return hashlib.sha256(sentence_key(text).encode()).hexdigest()[:_HASH_DIGITS]


def load_sentences(config: DatasetConfig, dev_share: float) -> tuple[Dataset, SentenceCounts]:
    """Read the splits, and return the unique sentences of train that occur neither in dev nor in test.

    In the returned data set, a row has one sentence, ``sentence1``, and ``dev`` has the sentences that are held out,
    chosen by ``split_seed``.

    Args:
        config: The dataset group.
        dev_share: Share of the sentences to hold out, at least one.

    Raises:
        InputError: when the data cannot be read, or fewer than two sentences are left.
    """
    source = load_dataset(config)
    assert isinstance(source.train, Pairs)
    sentences: dict[str, str] = {}
    for text in itertools.chain(source.train.sentence1, source.train.sentence2):
        sentences.setdefault(sentence_key(text), text)
    in_dev, in_test = _keys(source.dev), _keys(source.test)
    kept = [key for key in sentences if key not in in_dev and key not in in_test]
    if len(kept) < 2:
        raise InputError(
            f"dataset.train_file: {len(kept)} of {len(sentences)} sentences are left for pretraining, the others occur "
            "in dev or test too; at least 2 are needed"
        )
    order = np.random.RandomState(config.split_seed).permutation(len(kept))
    held_out = {kept[index] for index in order[: max(round(dev_share * len(kept)), 1)].tolist()}
    train = [sentences[key] for key in kept if key not in held_out]
    dev = [sentences[key] for key in kept if key in held_out]
    _check_excluded([*train, *dev], in_dev | in_test)
    counts = SentenceCounts(
        unique=len(sentences),
        in_dev=len(sentences.keys() & in_dev),
        in_test=len(sentences.keys() & in_test),
        excluded=len(sentences) - len(kept),
        pretrained=len(train),
        held_out=len(dev),
    )
    name = source.train.file
    data = Dataset(config.name, (), _as_rows(name, train), _as_rows(f"{name} (held out)", dev), notes=source.notes)
    return data, counts


def _keys(split: Pairs | None) -> set[str]:
    """Return the keys of all sentences of a split."""
    return set() if split is None else {sentence_key(text) for text in (*split.sentence1, *split.sentence2)}


def _check_excluded(sentences: Iterable[str], held_out: set[str]) -> None:
    """Check that no sentence of dev or test is left."""
    leaked = [text for text in sentences if sentence_key(text) in held_out]
    assert not leaked, f"{len(leaked)} sentences of dev or test would be pretrained on"


def _as_rows(name: str, sentences: list[str]) -> Pairs:
    return Pairs(name, list(range(len(sentences))), sentences, [""] * len(sentences), None)


def count_pretrained(pairs: Pairs, hashes: set[str]) -> int:
    """Return the number of different sentences of a split whose hashes are among those of the pretraining text."""
    return len({sentence_hash(text) for text in (*pairs.sentence1, *pairs.sentence2)} & hashes)
