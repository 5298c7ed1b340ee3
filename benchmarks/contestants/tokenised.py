"""Tokenisation of all pairs in one call of the fast tokenizer, for contestants that tokenise in advance."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from benchmarks.work import MAX_LENGTH, Pair


def tokenize(tokenizer: PreTrainedTokenizerBase, pairs: list[Pair]) -> list[dict[str, Any]]:
    """Return one dict of lists per pair, the input of ``DataCollatorWithPadding``."""
    sentences1, sentences2, labels = zip(*pairs, strict=True)
    columns = tokenizer(list(sentences1), list(sentences2), truncation=True, max_length=MAX_LENGTH)
    return [{**{key: columns[key][row] for key in columns}, "labels": label} for row, label in enumerate(labels)]
