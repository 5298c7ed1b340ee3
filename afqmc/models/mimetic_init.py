"""Mimetic initialisation: small encoders from scratch start with attention that matches equal tokens."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from afqmc.utils.errors import InputError

_GAIN = 1.5
_POSITION_SCALE = 0.1


def apply_mimetic_init(encoder: PreTrainedModel) -> None:
    """Set the key projection of each attention head to its query projection, and scale down position embeddings.

    In pretrained attention the product of query and key weights is close to a multiple of the identity. Starting there
    lets small transformers learn from little data: Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention
    Layers". Here the product is P^T P for a random P (head size x hidden size) with entries of variance ``_GAIN**2`` /
    hidden size. With small position embeddings, each token first attends to equal tokens in both sentences, which is
    the first step of comparing them.

    Raises:
        InputError: if the modules of the encoder do not have the names of BERT's.
    """
    modules = dict(encoder.named_modules())
    layers = [name.removesuffix(".query") for name in modules if name.endswith("attention.self.query")]
    positions = modules.get("embeddings.position_embeddings")
    if not layers or not isinstance(positions, nn.Embedding):
        raise InputError(
            f"model.mimetic_init=true: not supported for {encoder.config.model_type} (BERT-style encoders only)"
        )
    with torch.no_grad():
        positions.weight.mul_(_POSITION_SCALE)
        for layer in layers:
            query, key = modules[f"{layer}.query"], modules[f"{layer}.key"]
            assert isinstance(query, nn.Linear)
            assert isinstance(key, nn.Linear)
            query.weight.normal_(std=_GAIN * query.in_features**-0.5)
            key.weight.copy_(query.weight)
