"""What the contestants with tokenised data share: all pairs in one call of the fast tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from benchmarks.work import MAX_LENGTH, Pair


def tokenised(tokenizer: PreTrainedTokenizerBase, pairs: list[Pair]) -> list[dict[str, Any]]:
    """A dict of lists for each pair, as a padding collator takes them."""
    first, second, labels = zip(*pairs, strict=True)
    found = tokenizer(list(first), list(second), truncation=True, max_length=MAX_LENGTH)
    return [{**{key: found[key][row] for key in found}, "labels": label} for row, label in enumerate(labels)]
