"""A custom model: the mean embedding of each pair's tokens, and one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BagOfEmbeddings(nn.Module):
    """A baseline that ignores the order of the tokens.

    Args:
        num_labels: Classes C.
        vocab_size: Entries of the tokenizer's vocabulary.
        pad_token_id: Of padding.
        hidden_size: Size H of an embedding.
    """

    def __init__(self, num_labels: int, vocab_size: int, pad_token_id: int, hidden_size: int = 64) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocab_size, hidden_size, padding_idx=pad_token_id)
        self.head = nn.Linear(2 * hidden_size, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return logits (B, C) of inputs (B, T); the token types tell the two sentences apart."""
        states = self.embeddings(input_ids)  # (B, T, H)
        first, second = ((attention_mask * (token_type_ids == segment)).unsqueeze(-1) for segment in (0, 1))
        means = [(states * mask).sum(1) / mask.sum(1).clamp(min=1) for mask in (first, second)]
        return self.head(torch.cat([(means[0] - means[1]).abs(), means[0] * means[1]], dim=-1))
