"""A start for small encoders trained from scratch: attention that finds equal tokens before it has learnt anything."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from afqmc.utils.errors import InputError

_GAIN = 1.5
_POSITION_SCALE = 0.1


def apply_mimetic_init(encoder: PreTrainedModel) -> None:
    """Give each attention head equal query and key projections, and position embeddings a small part.

    Pretrained attention has query and key products close to a multiple of the identity, and starting there lets small
    transformers learn from little data: Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention Layers".
    Here the product is P^T P for a random P (head size x hidden size) with entries of variance ``_GAIN**2`` / hidden
    size. With positions scaled down, a token attends first to its equals, in its own sentence and in the other: what
    comparing two sentences begins with.

    Raises:
        InputError: for an encoder whose attention is not named as BERT's.
    """
    named = dict(encoder.named_modules())
    layers = [name.removesuffix(".query") for name in named if name.endswith("attention.self.query")]
    positions = named.get("embeddings.position_embeddings")
    if not layers or not isinstance(positions, nn.Embedding):
        raise InputError(f"model.mimetic_init=true: not for {encoder.config.model_type}; BERT and its kin have it")
    with torch.no_grad():
        positions.weight.mul_(_POSITION_SCALE)
        for layer in layers:
            query, key = named[f"{layer}.query"], named[f"{layer}.key"]
            assert isinstance(query, nn.Linear)
            assert isinstance(key, nn.Linear)
            query.weight.normal_(std=_GAIN * query.in_features**-0.5)
            key.weight.copy_(query.weight)
